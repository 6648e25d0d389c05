"""Second connections that take the place of the first: which are made, when, and how many at once."""

from __future__ import annotations

import random
from typing import Any, cast

import grpc
import pytest

from etcd_grpc.channel.rivals import Rivals
from etcd_grpc.channel.subchannel import Subchannel
from etcd_grpc.channel.ways import Way, Ways
from etcd_grpc.tls.names import names_to_check

State = grpc.ChannelConnectivity
FAILURE, READY, CONNECTING = State.TRANSIENT_FAILURE, State.READY, State.CONNECTING
NAMES = ("greeter", "")


class Link:
    """Stands for a subchannel."""

    def __init__(self, way: Way, state: State = CONNECTING) -> None:
        self.way = way
        self.state = state
        self.closed = False

    def look(self) -> bool:
        return False


class House:
    """Rivals, and what they have made and closed."""

    def __init__(self, names: tuple[str, ...] = NAMES) -> None:
        self.ways = Ways(names)
        self.made: list[Link] = []
        self.rivals: Rivals[grpc.Channel] = Rivals(
            self.ways, cast("Any", self._make), cast("Any", self._close), random.Random(1)
        )

    def holder(self, state: State, name: str = "greeter", generation: int = 0) -> Any:
        return Link(Way(name, generation), state)

    def _make(self, _holder: Subchannel[grpc.Channel], way: Way) -> Link:
        self.made.append(Link(way))
        return self.made[-1]

    def _close(self, link: Link) -> None:
        link.closed = True


@pytest.fixture
def house() -> House:
    return House()


def test_a_holder_that_connects_has_no_rival(house: House) -> None:
    for state in (State.IDLE, CONNECTING, READY):
        house.rivals.challenge("a", house.holder(state), 0.0)
    assert not house.made
    assert not house.rivals


def test_one_that_fails_is_tried_under_the_other_name_once(house: House) -> None:
    holder = house.holder(FAILURE)
    for now in (0.0, 1.0, 2.0):
        house.rivals.challenge("a", holder, now)
    house.made[0].state = FAILURE
    house.rivals.challenge("a", holder, 3.0)
    assert [link.way for link in house.made] == [Way("", 0)]


def test_where_there_is_one_name_there_is_no_rival() -> None:
    house = House(("",))
    house.rivals.challenge("a", house.holder(FAILURE, ""), 0.0)
    assert not house.made


def test_the_one_that_connects_wins(house: House) -> None:
    holder = house.holder(FAILURE)
    house.rivals.challenge("a", holder, 0.0)
    assert house.rivals.poll({"a": holder}, 0.1) == []
    house.made[0].state = READY
    ((key, winner),) = house.rivals.poll({"a": holder}, 0.2)
    assert (key, winner) == ("a", cast("Any", house.made[0]))
    assert not house.rivals
    assert not house.made[0].closed


def test_a_set_waits_for_a_rival_but_not_for_long(house: House) -> None:
    assert not house.rivals.undecided(0.0)
    house.rivals.challenge("a", house.holder(FAILURE), 0.0)
    assert house.rivals.undecided(1.0)
    assert not house.rivals.undecided(60.0), "an address that swallows everything"
    house.made[0].state = FAILURE
    assert not house.rivals.undecided(1.0)


def test_after_a_rotation_everything_is_connected_anew_a_few_at_a_time(house: House) -> None:
    holders = {str(n): house.holder(READY) for n in range(100)}
    house.ways.renew()
    house.rivals.renew(holders)
    renewed = []
    for _ in range(100):
        for key, winner in house.rivals.poll(holders, 0.0):
            holders[key] = winner
            renewed.append(key)
        fresh = [link for link in house.made if link.state is CONNECTING]
        assert len(fresh) <= 8
        for link in fresh:
            link.state = READY
    assert sorted(renewed, key=int) == [str(n) for n in range(100)]
    assert renewed != sorted(renewed, key=int), "not all clients in the same order"
    assert {holder.way for holder in holders.values()} == {Way("greeter", 1)}
    assert not house.rivals


def test_one_that_cannot_be_renewed_keeps_its_rivals_and_nobody_waits_for_it(house: House) -> None:
    holders = {str(n): house.holder(READY) for n in range(20)}
    house.ways.renew()
    house.rivals.renew(holders)
    for _ in range(20):
        assert house.rivals.poll(holders, 0.0) == []
        for link in house.made:
            link.state = FAILURE
    assert len(house.made) == 40, "each under both names, with the new certificates"
    assert {link.way for link in house.made} == {Way("greeter", 1), Way("", 1)}
    house.made[0].state = READY
    assert len(house.rivals.poll(holders, 9.0)) == 1


def test_the_next_rotation_begins_anew(house: House) -> None:
    holders = {"a": house.holder(READY)}
    for generation in (1, 2):
        house.ways.renew()
        house.rivals.renew(holders)
        house.rivals.poll(holders, 0.0)
        assert house.made[-1].way == Way("greeter", generation)
    assert [link.closed for link in house.made] == [True, False]


def test_an_outdated_connection_that_is_lost_comes_back_with_new_certificates(house: House) -> None:
    holder = house.holder(CONNECTING)
    house.ways.renew()
    house.rivals.challenge("a", holder, 0.0)
    assert house.made[0].way == Way("greeter", 1)


def test_dropped_and_closed_rivals_are_closed(house: House) -> None:
    for key in "ab":
        house.rivals.challenge(key, house.holder(FAILURE), 0.0)
    house.rivals.drop("a")
    assert [link.closed for link in house.made] == [True, False]
    house.rivals.close()
    assert all(link.closed for link in house.made)


def test_what_worked_for_one_endpoint_is_tried_first_for_the_next() -> None:
    ways = Ways(NAMES)
    assert ways.first() == Way("greeter", 0)
    ways.worked(Way("", 0))
    assert ways.first() == Way("", 0)
    assert ways.untried({Way("", 0)}) == Way("greeter", 0)
    assert ways.untried({Way("", 0), Way("greeter", 0)}) is None
    ways.renew()
    assert ways.untried({Way("", 0), Way("greeter", 0)}) == Way("", 1)
    assert not ways.current(Way("", 0))


@pytest.mark.parametrize(
    ("service", "names"),
    [
        ("helloworld.Greeter", ("helloworld.Greeter", "")),
        ("greeter", ("greeter", "")),
        ("my_greeter-2", ("my_greeter-2", "")),
        ("10.0.0.1", ("",)),
        ("team/greeter", ("",)),
        ("grüße", ("",)),
        (".greeter", ("",)),
        ("*.test", ("",)),
        ("a" * 64, ("",)),
        (".".join(["a" * 60] * 5), ("",)),
    ],
)
def test_a_service_is_checked_by_its_name_where_that_can_stand_in_a_certificate(
    service: str, names: tuple[str, ...]
) -> None:
    assert names_to_check(service, None, ()) == names


def test_the_applications_choice_is_the_only_name() -> None:
    assert names_to_check("greeter", "other", ()) == ("other",)
    for option in ("grpc.ssl_target_name_override", "grpc.default_authority"):
        assert names_to_check("greeter", None, [option]) == ("",)
    assert names_to_check("greeter", None, ["grpc.keepalive_time_ms"]) == ("greeter", "")


def test_a_rival_that_fails_takes_over_where_its_failing_is_the_news(house: House) -> None:
    holder = house.holder(READY, "")
    house.ways.worked(Way("", 0))
    house.ways.renew()
    house.rivals.renew(["k"], even_failing=True)
    assert house.rivals.poll({"k": holder}, 0.0) == []
    (first,) = house.made
    first.state = FAILURE
    assert house.rivals.poll({"k": holder}, 0.1) == []  # the other name is tried first
    house.made[-1].state = FAILURE
    ((key, winner),) = house.rivals.poll({"k": holder}, 0.2)
    assert (key, cast("Any", winner)) == ("k", first)
    assert not first.closed
    assert not house.rivals
