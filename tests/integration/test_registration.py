"""Registrations in a real etcd: what is written, kept, restored and withdrawn."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.support.calls import free_port
from tests.support.etcd import RawEtcd
from tests.support.processes import EchoServer
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc import plane
from etcd_grpc.devcluster import Cluster


def test_an_instance_stands_in_the_official_layout_while_the_block_lasts(etcd, service, raw):
    with etcd_grpc.register(
        service, port=5000, weight=2, zone="a", version="v1", metadata={"k": 1}, etcd=etcd, settle_s=0
    ) as registration:
        assert registration.instance.address == "127.0.0.1:5000"
        found = raw.get(f"{service}/")
        assert list(found) == [f"{service}/127.0.0.1:5000"]
        value = json.loads(found[f"{service}/127.0.0.1:5000"].value)
        assert (value["Op"], value["Addr"]) == (0, "127.0.0.1:5000")
        assert value["Metadata"] == {
            "id": registration.instance.id,
            "metadata": {"k": 1},
            "protocol": "grpc",
            "status": "serving",
            "version": "v1",
            "weight": 2,
            "zone": "a",
        }
        assert found[f"{service}/127.0.0.1:5000"].lease != 0
    assert raw.get(f"{service}/") == {}


async def test_the_asyncio_twin_does_the_same(etcd, service, raw):
    async with etcd_grpc.aio.register(service, port=5000, etcd=etcd, settle_s=0) as registration:
        assert registration.instance.address == "127.0.0.1:5000"
        assert list(raw.get(f"{service}/")) == [f"{service}/127.0.0.1:5000"]
        await registration.update(weight=3)
        (kv,) = raw.get(f"{service}/").values()
        assert json.loads(kv.value)["Metadata"]["weight"] == 3
    assert raw.get(f"{service}/") == {}


def status_of(raw: RawEtcd, service: str, revision: int = 0) -> str:
    """The status of the only entry, now or at ``revision``; "" if there is none."""
    found = raw.get(f"{service}/", revision).values()
    return "".join(json.loads(kv.value)["Metadata"]["status"] for kv in found)


def test_leaving_marks_the_instance_as_draining_before_the_key_goes(etcd, service, raw):
    registration = etcd_grpc.register(service, port=5000, etcd=etcd, settle_s=0.1)
    before = raw.revision()
    registration.close()
    seen = [status_of(raw, service, revision) for revision in range(before, raw.revision() + 1)]
    assert [status for status, _ in itertools.groupby(seen)] == ["serving", "draining", ""]


def test_what_was_drained_stands_until_it_is_closed_which_then_takes_no_time(etcd, service, raw):
    registration = etcd_grpc.register(service, port=5000, etcd=etcd, settle_s=60)
    registration.drain()
    assert status_of(raw, service) == "draining"
    assert registration.instance.status is etcd_grpc.Status.DRAINING
    began = time.monotonic()
    registration.close()
    assert time.monotonic() - began < 30
    assert raw.get(f"{service}/") == {}
    with pytest.raises(etcd_grpc.ConfigurationError, match="closed"):
        registration.drain()


async def test_asyncio_drains_the_same_way(etcd, service, raw):
    async with etcd_grpc.aio.register(service, port=5000, etcd=etcd, settle_s=60) as registration:
        await registration.drain()
        assert status_of(raw, service) == "draining"
    assert raw.get(f"{service}/") == {}
    with pytest.raises(etcd_grpc.ConfigurationError, match="closed"):
        await registration.drain()


def test_weight_and_metadata_are_changed_in_place(etcd, service, raw):
    with etcd_grpc.register(service, port=5000, etcd=etcd, settle_s=0) as registration:
        before = raw.get(f"{service}/").popitem()[1]
        registration.update(weight=5, metadata={"canary": True})
        after = raw.get(f"{service}/").popitem()[1]
        assert after.create_revision == before.create_revision
        value = json.loads(after.value)["Metadata"]
        assert (value["weight"], value["metadata"]) == (5, {"canary": True})
        with pytest.raises(etcd_grpc.ConfigurationError, match="weight"):
            registration.update(weight=-1)
    with pytest.raises(etcd_grpc.ConfigurationError, match="closed"):
        registration.update(weight=1)


def test_all_registrations_of_a_process_share_one_lease(etcd, service, raw):
    with (
        etcd_grpc.register(service, port=5000, etcd=etcd, settle_s=0),
        etcd_grpc.register(service, port=5001, etcd=etcd, settle_s=0),
    ):
        leases = {kv.lease for kv in raw.get(f"{service}/").values()}
        assert len(leases) == 1
    assert raw.get(f"{service}/") == {}


def test_withdrawing_one_leaves_the_other(etcd, service, raw):
    with etcd_grpc.register(service, port=5000, etcd=etcd, settle_s=0):
        etcd_grpc.register(service, port=5001, etcd=etcd, settle_s=0).close()
        assert list(raw.get(f"{service}/")) == [f"{service}/127.0.0.1:5000"]


async def test_registering_while_the_last_one_leaves(etcd, service, raw):
    config = etcd_grpc.EtcdConfig((etcd,))

    async def register(port: int) -> contextlib.AsyncExitStack:
        stack = contextlib.AsyncExitStack()
        how = {"ttl_s": 5, "settle_s": 0, "etcd": config}
        await stack.enter_async_context(etcd_grpc.aio.register(service, port=port, **how))
        return stack

    with plane.using(config):  # one session, and one lease, for all of them
        last = await register(5000)
        for port in range(5001, 5020):
            _, last = await asyncio.gather(last.aclose(), register(port))
            assert list(raw.get(f"{service}/")) == [f"{service}/127.0.0.1:{port}"]
        (kept,) = raw.get(f"{service}/").values()
        await asyncio.sleep(6)  # the point: longer than the lease without a beat
        assert [kv.create_revision for kv in raw.get(f"{service}/").values()] == [kept.create_revision]
        await last.aclose()
        assert raw.get(f"{service}/") == {}


def test_the_lease_is_kept_beyond_its_ttl(etcd, service, raw):
    with etcd_grpc.register(service, port=5000, ttl_s=5, etcd=etcd, settle_s=0):
        (first,) = raw.get(f"{service}/").values()
        end = time.monotonic() + 8
        while time.monotonic() < end:
            assert len(raw.get(f"{service}/")) == 1
            time.sleep(0.1)
        (last,) = raw.get(f"{service}/").values()
        assert last.create_revision == first.create_revision


def test_a_revoked_lease_is_granted_again_and_its_keys_put_again(etcd, service, raw):
    with (
        etcd_grpc.register(service, port=5000, ttl_s=3, etcd=etcd, settle_s=0),
        etcd_grpc.register(service, port=5001, ttl_s=3, etcd=etcd, settle_s=0),
    ):
        lease = next(iter(raw.get(f"{service}/").values())).lease
        raw.revoke(lease)
        wait_until(lambda: len(raw.get(f"{service}/")) == 2, "both back")
        found = raw.get(f"{service}/")
        assert {kv.lease for kv in found.values()} != {lease}
    assert raw.get(f"{service}/") == {}


def test_a_restart_takes_its_own_key_over(etcd, service, raw):
    """The first process dies; the second comes back on the same address within the TTL."""
    with EchoServer(register=service, etcd=etcd, ttl_s=3) as first:
        first.kill()
    with EchoServer(register=service, etcd=etcd, ttl_s=10, port=first.port):
        (kv,) = raw.get(f"{service}/").values()
        end = time.monotonic() + 5  # longer than the first one's lease
        while time.monotonic() < end:
            assert [k.lease for k in raw.get(f"{service}/").values()] == [kv.lease]
            time.sleep(0.1)


def test_withdrawing_spares_a_key_that_another_process_has_taken_over(etcd, service, raw):
    theirs = b'{"Op":0,"Addr":"127.0.0.1:5000"}'
    with etcd_grpc.register(service, port=5000, etcd=etcd, settle_s=0):
        raw.put(f"{service}/127.0.0.1:5000", theirs, raw.grant(60))
    assert [kv.value for kv in raw.get(f"{service}/").values()] == [theirs]


def test_a_killed_process_is_gone_after_its_ttl(etcd, service, raw):
    with EchoServer(register=service, etcd=etcd, ttl_s=5) as server:
        assert len(raw.get(f"{service}/")) == 1
        server.kill()
        wait_until(lambda: not raw.get(f"{service}/"), "gone with its lease", 30)


def test_sigterm_withdraws(etcd, service, raw):
    with EchoServer(register=service, etcd=etcd, ttl_s=60) as server:
        assert server.terminate() == 0
        assert raw.get(f"{service}/") == {}


def test_what_nobody_closed_is_withdrawn_at_exit(etcd, service, raw):
    code = f"import etcd_grpc; etcd_grpc.register({service!r}, port=5000, ttl_s=60); print('up')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "ETCDCTL_ENDPOINTS": etcd},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "up\n", "")
    assert raw.get(f"{service}/") == {}


def test_what_an_event_loop_left_open_is_withdrawn_at_exit(etcd, service, raw):
    code = (
        "import asyncio, etcd_grpc\n"
        "async def main():\n"
        f"    await etcd_grpc.aio.register({service!r}, port=5000, ttl_s=60).start()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ETCDCTL_ENDPOINTS": etcd},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert raw.get(f"{service}/") == {}


def test_an_outage_is_logged_once_and_so_is_its_end(service, caplog):
    with Cluster(1) as cluster:
        with etcd_grpc.register(service, port=5000, ttl_s=3, etcd=cluster.endpoints, settle_s=0):
            cluster.kill(0)
            wait_until(lambda: "takes no registrations" in caplog.text, "told", 30)
            time.sleep(3)  # the point: several attempts fail meanwhile
            cluster.restart(0)
            wait_until(lambda: "takes registrations again" in caplog.text, "told", 30)
    assert caplog.text.count("takes no registrations") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"port": 0}, "port 0 is not in 1..65535"),
        ({"port": 70000}, "port 70000 is not in 1..65535"),
        ({}, "neither port nor address"),
        ({"address": "0.0.0.0:5000"}, "cannot be advertised"),
        ({"port": 5000, "host": "::"}, "cannot be advertised"),
        ({"address": "nonsense"}, "not host:port"),
        ({"port": 5000, "ttl_s": 0}, "ttl_s is 0"),
        ({"port": 5000, "ttl_s": -5}, "ttl_s is -5"),
        ({"port": 5000, "ttl_s": 1.5}, "whole number"),
        ({"port": 5000, "weight": -1}, "weight"),
        ({"port": 5000, "metadata": {"x": object()}}, "metadata is not JSON"),
        ({"port": 5000, "settle_s": -1}, "settle_s"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(etcd, service, raw, arguments, problem):
    with pytest.raises(etcd_grpc.ConfigurationError, match=problem):
        etcd_grpc.register(service, etcd=etcd, **arguments)
    assert raw.get(f"{service}/") == {}


def test_an_unknown_etcd_is_named_and_nothing_stays(service):
    dead = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(etcd_grpc.EtcdUnavailableError) as caught:
        etcd_grpc.register(service, port=5000, etcd=dead, timeout_s=0.5)
    assert dead in str(caught.value)
    assert service in str(caught.value)
    assert time.monotonic() - started < 20


async def test_an_unknown_etcd_is_named_to_asyncio_too(service):
    dead = f"127.0.0.1:{free_port()}"
    with pytest.raises(etcd_grpc.EtcdUnavailableError, match=dead):
        async with etcd_grpc.aio.register(service, port=5000, etcd=dead, timeout_s=0.5):
            pass


def test_registration_survives_the_loss_of_the_member_it_talks_to(cluster: Cluster, service):
    with etcd_grpc.register(service, port=5000, ttl_s=6, etcd=cluster.endpoints, settle_s=0):
        control = plane.acquire(etcd_grpc.EtcdConfig.of(cluster.endpoints))
        talking_to = cluster.endpoints.index(control.session.transport.member)
        control.release()
        cluster.kill(talking_to)
        with RawEtcd(cluster.endpoints[(talking_to + 1) % 3]) as raw:
            end = time.monotonic() + 9
            while time.monotonic() < end:
                assert len(raw.get(f"{service}/")) == 1
                time.sleep(0.1)


def test_a_paused_member_is_left_before_the_lease_ends(cluster: Cluster, service):
    with etcd_grpc.register(service, port=5000, ttl_s=9, etcd=cluster.endpoints, settle_s=0):
        control = plane.acquire(etcd_grpc.EtcdConfig.of(cluster.endpoints))
        talking_to = cluster.endpoints.index(control.session.transport.member)
        control.release()
        cluster.pause(talking_to)
        try:
            with RawEtcd(cluster.endpoints[(talking_to + 1) % 3]) as raw:
                end = time.monotonic() + 12
                while time.monotonic() < end:
                    assert len(raw.get(f"{service}/")) == 1
                    time.sleep(0.1)
        finally:
            cluster.resume(talking_to)


def test_everything_is_registered_again_after_an_outage_longer_than_the_ttl(service):
    with Cluster(1) as cluster, RawEtcd(cluster.endpoints[0]) as raw:
        with etcd_grpc.register(service, port=5000, ttl_s=4, etcd=cluster.endpoints, settle_s=0):
            (before,) = raw.get(f"{service}/").values()
            raw.revoke(before.lease)
            cluster.kill(0)
            time.sleep(5)
            cluster.restart(0)
            cluster.wait_healthy()
            wait_until(lambda: len(raw.get(f"{service}/")) == 1, "back", 30)
        assert raw.get(f"{service}/") == {}


def test_withdrawing_without_etcd_is_bounded(service):
    with Cluster(1) as cluster:
        registration = etcd_grpc.register(
            service, port=5000, etcd=cluster.endpoints, settle_s=0, timeout_s=1
        )
        cluster.kill(0)
        started = time.monotonic()
        registration.close()
        assert time.monotonic() - started < 20


def test_what_could_not_be_withdrawn_goes_although_others_keep_the_lease(service):
    with Cluster(1) as cluster, RawEtcd(cluster.endpoints[0]) as raw:
        how = {"ttl_s": 60, "etcd": cluster.endpoints, "settle_s": 0, "timeout_s": 1}
        with etcd_grpc.register(service, port=5000, **how | {"timeout_s": 20}):
            leaving = etcd_grpc.register(service, port=5001, **how)
            back = etcd_grpc.register(service, port=5002, **how)
            cluster.kill(0)
            with pytest.raises(etcd_grpc.EtcdUnavailableError, match="cannot change the entry of"):
                leaving.update(weight=2)
            leaving.close()
            back.close()
            with pytest.raises(etcd_grpc.EtcdUnavailableError):
                etcd_grpc.register(service, port=5002, **how)
            again = etcd_grpc.register(service, port=5003, required=False, **how)
            again.close()
            cluster.restart(0)
            cluster.wait_healthy()
            stay = [f"{service}/127.0.0.1:5000"]
            wait_until(lambda: list(raw.get(f"{service}/")) == stay, "only it is left", 30)
            with etcd_grpc.register(service, port=5001, **how | {"timeout_s": 20}):
                assert len(raw.get(f"{service}/")) == 2
        assert raw.get(f"{service}/") == {}


def test_what_is_registered_again_after_a_failed_withdrawal_stands(service):
    with Cluster(1) as cluster, RawEtcd(cluster.endpoints[0]) as raw:
        how = {"ttl_s": 60, "etcd": cluster.endpoints, "settle_s": 0, "timeout_s": 1}
        with etcd_grpc.register(service, port=5000, **how | {"timeout_s": 20}):
            first = etcd_grpc.register(service, port=5001, **how)
            cluster.kill(0)
            first.close()
            again = etcd_grpc.register(service, port=5001, required=False, **how)
            cluster.restart(0)
            cluster.wait_healthy()
            wait_until(lambda: again.registered, "it stands again", 30)
            assert len(raw.get(f"{service}/")) == 2
            again.close()  # or, where a second is not enough, a little later
            stay = [f"{service}/127.0.0.1:5000"]
            wait_until(lambda: list(raw.get(f"{service}/")) == stay, "only the other is left")


def test_sigint_in_the_block_withdraws(etcd, service, raw):
    code = (
        "import etcd_grpc, threading\n"
        f"with etcd_grpc.register({service!r}, port=5000, ttl_s=60):\n"
        "    print('up', flush=True)\n"
        "    threading.Event().wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "ETCDCTL_ENDPOINTS": etcd},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert raw.get(f"{service}/") == {}
