"""Certificate files that are followed, on a real file system."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from tests.support.certificates import Folder
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.telemetry import events
from etcd_grpc.tls.material import CertificateFiles, Material
from etcd_grpc.tls.watcher import Watched, rejections, watch

Follow = Callable[[Folder], tuple[Watched, list[Material]]]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Folder:
    """As Kubernetes mounts a secret."""
    made = Folder(tmp_path / "mounted", authority)
    made.rotate("127.0.0.1")
    return made


@pytest.fixture
def told() -> Iterator[list[etcd_grpc.Event]]:
    seen: list[etcd_grpc.Event] = []
    with etcd_grpc.listen(seen.append):
        yield seen


@pytest.fixture
def follow() -> Iterator[Follow]:
    opened: list[Watched] = []

    def start(folder: Folder) -> tuple[Watched, list[Material]]:
        seen: list[Material] = []
        opened.append(watch(folder.files, seen.append))
        return opened[-1], seen

    yield start
    for watched in opened:
        watched.close()
    assert not threads()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "etcd-grpc-files"]


def of(told: list[etcd_grpc.Event], kind: type[etcd_grpc.Event]) -> list[etcd_grpc.Event]:
    return [event for event in told if isinstance(event, kind)]


def test_a_swap_of_kubernetes_link_is_seen(
    folder: Folder, follow: Follow, told: list[etcd_grpc.Event]
) -> None:
    watched, seen = follow(folder)
    before = watched.material
    folder.rotate("127.0.0.1")
    wait_until(lambda: seen, "told of the new pair")
    assert watched.material == seen[0] == folder.files.read() != before
    assert watched.generation == 1
    wait_until(lambda: of(told, events.CertificateRotated), "an event")
    assert "127.0.0.1" in str(of(told, events.CertificateRotated)[0])


def test_files_that_are_overwritten_one_after_another_are_no_fault(
    folder: Folder, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcd_grpc.tls.rotation.SETTLE_S", 60.0)  # so slow may this machine be
    watched, seen = follow(folder)
    folder.rotate("127.0.0.1", whole=False)
    wait_until(lambda: seen, "followed")
    assert watched.rejected == 0
    assert seen == [folder.files.read()]


def test_a_key_of_another_certificate_is_refused_told_once_and_counted(
    folder: Folder, follow: Follow, told: list[etcd_grpc.Event]
) -> None:
    watched, seen = follow(folder)
    good, before = watched.material, rejections()
    folder.mismatch("127.0.0.1")
    wait_until(lambda: of(told, events.CertificateRejected), "refused")
    assert rejections() == before + 1
    assert "does not belong to the certificate" in str(of(told, events.CertificateRejected)[0])
    assert watched.material == good
    folder.rotate("127.0.0.1")
    wait_until(lambda: seen, "the next good pair is used")
    assert (watched.generation, watched.rejected) == (1, 1)
    assert len(seen) == len(of(told, events.CertificateRejected)) == 1


def test_an_expired_certificate_is_refused_with_its_date(
    folder: Folder, follow: Follow, told: list[etcd_grpc.Event]
) -> None:
    watched, _ = follow(folder)
    folder.rotate("127.0.0.1", end=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    wait_until(lambda: of(told, events.CertificateRejected), "refused")
    assert "expired: notAfter is 2020-01-01" in str(of(told, events.CertificateRejected)[0])
    assert watched.generation == 0


def test_files_that_vanish_leave_the_last_good_pair(folder: Folder, follow: Follow) -> None:
    watched, seen = follow(folder)
    good = watched.material
    folder.remove()
    wait_until(lambda: watched.rejected, "noticed")
    assert watched.material == good
    assert not seen


def test_what_cannot_be_used_at_first_is_an_error_and_leaves_no_thread(folder: Folder) -> None:
    folder.mismatch("127.0.0.1")
    with pytest.raises(ConfigurationError, match="does not belong"):
        watch(folder.files, lambda _material: None)
    assert not threads()


def test_many_files_have_one_thread_which_ends_with_the_last(folder: Folder, follow: Follow) -> None:
    first, _ = follow(folder)
    second, _ = follow(folder)
    assert len(threads()) == 1
    first.close()
    first.close()
    assert len(threads()) == 1
    second.close()
    assert not threads()
    again, _ = follow(folder)
    assert len(threads()) == 1
    again.close()


def test_a_forked_child_watches_nothing_and_can_begin_anew(folder: Folder, follow: Follow) -> None:
    watched, _ = follow(folder)
    child = os.fork()
    if not child:
        try:
            watched.close()  # the parent's: nothing to do here
            own = watch(folder.files, lambda _material: None)
            fresh = len(threads()) == 1
            own.close()
            os._exit(0 if fresh and not threads() else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(threads()) == 1


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
def test_a_file_that_is_no_pem_is_named(folder: Folder, name: str) -> None:
    broken = folder.path / "broken.pem"
    broken.write_text("no PEM")
    paths = {"ca": folder.ca, "cert": folder.cert, "key": folder.key, name: broken}
    with pytest.raises(ConfigurationError, match=r"broken\.pem"):
        CertificateFiles(paths["ca"], paths["cert"], paths["key"]).load()
