"""Keys that somebody else deletes, edits or takes over: what becomes of a registration."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
from tests.support.calls import free_port
from tests.support.etcd import RawEtcd
from tests.support.processes import EchoServer
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.devcluster import Cluster
from etcd_grpc.etcd import methods
from etcd_grpc.etcd.transport import Transport
from etcd_grpc.telemetry import events


def one(raw: RawEtcd, service: str):
    """The only key of the service, or None."""
    found = raw.get(f"{service}/")
    assert len(found) <= 1
    return next(iter(found.values()), None)


def address_of(kv) -> str:
    return json.loads(kv.value)["Addr"]


@pytest.fixture
def told():
    """Every event of the test, in order."""
    seen: list[etcd_grpc.Event] = []
    with etcd_grpc.listen(seen.append):
        yield seen


def kinds(told, kind) -> list[etcd_grpc.Event]:
    return [event for event in told if isinstance(event, kind)]


def test_a_deleted_key_is_put_again_long_before_the_next_beat(etcd, service, raw, told):
    """Which a TTL of 60 s puts 20 s away."""
    with etcd_grpc.register(service, port=5000, ttl_s=60, etcd=etcd, settle_s=0) as registration:
        for _ in range(3):
            before = one(raw, service)
            raw.delete(before.key.decode())
            after = wait_until(lambda: one(raw, service), "back")
            assert after.value == before.value
            wait_until(lambda: registration.registered, "known to be there")
    assert one(raw, service) is None
    wait_until(lambda: kinds(told, events.Withdrawn), "told")
    assert len(kinds(told, events.KeyLost)) == 3
    assert [event.again for event in kinds(told, events.Registered)] == [False, True, True, True]


def test_a_key_that_is_deleted_before_we_hear_of_its_put_is_put_again(
    etcd, service, raw, told, monkeypatch
):
    """The watch is another stream than the answers, and may be faster."""
    held, hear, call = threading.Event(), threading.Event(), Transport.call

    async def slow_answers(self, method, request, *others, **named):
        answer = await call(self, method, request, *others, **named)
        if method is methods.TXN and held.is_set():
            await asyncio.to_thread(hear.wait, 30)
        return answer

    with etcd_grpc.register(service, port=5000, ttl_s=60, etcd=etcd, settle_s=0) as registration:
        monkeypatch.setattr(Transport, "call", slow_answers)
        held.set()
        for count in (1, 2):
            raw.delete(wait_until(lambda: one(raw, service), "there").key.decode())
            wait_until(lambda: len(kinds(told, events.KeyLost)) == count, "noticed")  # noqa: B023
        hear.set()
        wait_until(lambda: registration.registered, "known to be there")
        assert one(raw, service) is not None


def test_a_revoked_lease_is_replaced_long_before_its_next_beat(etcd, service, raw, told):
    """Which a TTL of 60 s puts 20 s away."""
    with etcd_grpc.register(service, port=5000, ttl_s=60, etcd=etcd, settle_s=0):
        lease = one(raw, service).lease
        raw.revoke(lease)
        after = wait_until(lambda: one(raw, service), "back")
        assert after.lease not in (0, lease)
        wait_until(lambda: len(kinds(told, events.Registered)) == 2, "told")
    assert [event.again for event in kinds(told, events.LeaseGranted)] == [False, True]
    assert [event.lease_id for event in kinds(told, events.LeaseLost)] == [lease]


def test_an_edit_by_hand_is_undone(etcd, service, raw):
    """An entry without a lease would stand there for ever."""
    with etcd_grpc.register(service, port=5000, etcd=etcd, settle_s=0):
        before = one(raw, service)
        raw.put(before.key.decode(), json.dumps({"Op": 0, "Addr": "10.0.0.1:1", "Metadata": None}))
        wait_until(lambda: one(raw, service).value == before.value, "undone")
        assert one(raw, service).lease == before.lease


def test_a_key_that_another_process_takes_over_is_left_to_it_until_it_is_gone(etcd, service, raw, told):
    theirs = json.dumps({"Op": 0, "Addr": "127.0.0.1:5000", "Metadata": None}).encode()
    lease = raw.grant(60)
    with etcd_grpc.register(service, port=5000, etcd=etcd, settle_s=0) as registration:
        key = one(raw, service).key.decode()
        raw.put(key, theirs, lease)
        wait_until(lambda: kinds(told, events.RegistrationOvertaken), "told")
        assert not registration.registered
        assert one(raw, service).value == theirs
        with pytest.raises(etcd_grpc.EtcdError, match="another process"):
            registration.update(weight=2)
        raw.revoke(lease)
        wait_until(lambda: registration.registered, "ours again")
        assert json.loads(one(raw, service).value)["Metadata"]["weight"] == 2
    assert len(kinds(told, events.RegistrationOvertaken)) == 1


def test_two_live_processes_with_one_id_the_second_is_refused(etcd, service, raw):
    first = etcd_grpc.register(service, port=5000, id="a", ttl_s=5, etcd=etcd, settle_s=0)
    other = etcd_grpc.EtcdConfig((etcd, etcd))  # another session, as another process has
    with first:
        before = one(raw, service)
        assert before.key.decode() == f"{service}/a"
        with pytest.raises(etcd_grpc.DuplicateInstanceError, match=r"'a' already.*alive"):
            etcd_grpc.register(service, port=6000, id="a", ttl_s=5, etcd=other, timeout_s=20)
        after = one(raw, service)
        assert (after.value, after.lease) == (before.value, before.lease)
    assert one(raw, service) is None


@pytest.mark.parametrize("where", ["the same address", "another address"])
def test_a_restart_with_its_id_takes_its_own_key_over(etcd, service, raw, where):
    """In one transaction: at every moment there is one entry, the old one or the new."""
    with EchoServer(register=service, identity="a", etcd=etcd, ttl_s=6) as first:
        first.kill()
    stop = threading.Event()
    seen: list[str] = []

    def look() -> None:
        while not stop.is_set():
            seen.extend(map(address_of, raw.get(f"{service}/").values()))
            seen.append("")

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        again = first.port if where == "the same address" else free_port()
        with etcd_grpc.register(service, port=again, id="a", ttl_s=6, etcd=etcd, settle_s=0):
            assert address_of(one(raw, service)) == f"127.0.0.1:{again}"
    finally:
        stop.set()
        watcher.join()
    looks = " ".join(seen[:-1]).split("  ")
    assert all(len(look.split()) <= 1 for look in looks)


def test_the_same_id_twice_in_one_process_is_refused(etcd, service):
    with etcd_grpc.register(service, port=5000, id="a", etcd=etcd, settle_s=0):
        with pytest.raises(etcd_grpc.ConfigurationError, match="already registered by this process"):
            etcd_grpc.register(service, port=5001, id="a", etcd=etcd)


@pytest.mark.parametrize("bad", ["", "a/b", "a\nb", "x" * 201])
def test_an_id_that_cannot_be_a_key_is_refused(etcd, service, bad):
    with pytest.raises(etcd_grpc.ConfigurationError, match="id"):
        etcd_grpc.register(service, port=5000, id=bad, etcd=etcd)


def test_what_is_not_required_is_registered_once_etcd_is_there(service):
    with Cluster(1) as cluster, RawEtcd(cluster.endpoints[0]) as raw:
        cluster.kill(0)
        started = time.monotonic()
        with etcd_grpc.register(
            service, port=5000, required=False, timeout_s=0.5, etcd=cluster.endpoints, settle_s=0
        ) as registration:
            assert time.monotonic() - started < 20  # it does not wait for the restart below
            assert not registration.registered
            cluster.restart(0)
            wait_until(lambda: registration.registered, "registered", 30)
            assert one(raw, service) is not None
        assert one(raw, service) is None


async def test_what_is_not_required_goes_on_in_asyncio_too(service):
    dead = f"127.0.0.1:{free_port()}"
    async with etcd_grpc.aio.register(
        service, port=5000, required=False, timeout_s=0.3, etcd=dead, settle_s=0
    ) as registration:
        assert not registration.registered
