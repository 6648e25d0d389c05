"""What becomes of certificates that are replaced on disk: the pure decisions."""

from __future__ import annotations

from etcd_grpc.tls.material import Material
from etcd_grpc.tls.rotation import SETTLE_S, Reading, Rotation, Verdict

OLD, NEW, BAD, WORSE = (Material(b"ca", name, name) for name in (b"old", b"new", b"bad", b"worse"))


def bad(material: Material | None = BAD, problem: str = "the key does not belong to it") -> Reading:
    return Reading(material, problem)


def test_the_same_content_is_nothing_new() -> None:
    rotation = Rotation(OLD)
    assert rotation.receive(Reading(OLD), 1.0) is Verdict.SAME
    assert (rotation.material, rotation.generation) == (OLD, 0)


def test_a_good_pair_takes_the_place_of_the_one_before_at_once() -> None:
    rotation = Rotation(OLD)
    assert rotation.receive(Reading(NEW), 1.0) is Verdict.NEW
    assert (rotation.material, rotation.generation) == (NEW, 1)
    assert rotation.receive(Reading(NEW), 2.0) is Verdict.SAME


def test_a_bad_pair_leaves_the_last_good_one_and_is_told_once() -> None:
    rotation = Rotation(OLD)
    assert rotation.receive(bad(), 1.0) is Verdict.UNSETTLED
    assert rotation.receive(bad(), 1.0 + SETTLE_S) is Verdict.REJECTED
    assert rotation.receive(bad(), 60.0) is Verdict.SAME
    assert (rotation.material, rotation.generation, rotation.rejected) == (OLD, 0, 1)


def test_a_rotation_that_is_under_way_is_not_held_against_anybody() -> None:
    rotation = Rotation(OLD)
    assert rotation.receive(bad(), 1.0) is Verdict.UNSETTLED
    assert rotation.unsettled
    assert rotation.receive(Reading(NEW), 1.0 + SETTLE_S / 2) is Verdict.NEW
    assert rotation.rejected == 0
    assert not rotation.unsettled


def test_a_change_while_it_is_unsettled_gets_its_own_time() -> None:
    rotation = Rotation(OLD)
    rotation.receive(bad(), 1.0)
    assert rotation.receive(bad(WORSE), 1.0 + SETTLE_S) is Verdict.UNSETTLED
    assert rotation.receive(bad(WORSE), 1.0 + 2 * SETTLE_S) is Verdict.REJECTED


def test_another_bad_content_is_told_again() -> None:
    rotation = Rotation(OLD)
    for now, content in ((1.0, BAD), (10.0, WORSE), (20.0, BAD)):
        rotation.receive(bad(content), now)
        assert rotation.receive(bad(content), now + SETTLE_S) is Verdict.REJECTED
    assert rotation.rejected == 3


def test_what_was_refused_may_become_valid_without_a_change() -> None:
    rotation = Rotation(OLD)
    rotation.receive(bad(NEW, "not valid yet"), 1.0)
    rotation.receive(bad(NEW, "not valid yet"), 2.0)
    assert rotation.receive(Reading(NEW), 3.0) is Verdict.NEW


def test_files_that_are_missing_are_refused_like_any_bad_content() -> None:
    rotation = Rotation(OLD)
    rotation.receive(bad(None, "cannot read it"), 1.0)
    assert rotation.receive(bad(None, "cannot read it"), 2.0) is Verdict.REJECTED
    assert rotation.receive(Reading(OLD), 3.0) is Verdict.SAME


def test_the_key_is_not_shown() -> None:
    assert "b'old'" not in repr(OLD)
    assert "b'old'" not in repr(Reading(OLD, "bad"))
