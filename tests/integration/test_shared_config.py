"""A service config that stands in etcd: every client follows it, and none is led astray by it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import grpc
import pytest
from tests.support.calls import RETRY, who
from tests.support.scripted import connected
from tests.support.waiting import until, wait_until

import etcd_grpc
from etcd_grpc import plane
from etcd_grpc.channel import following
from etcd_grpc.shared_config import ConfigSubscription, config_key
from etcd_grpc.telemetry import events

FIRST = {"loadBalancingConfig": [{"pick_first": {}}]}


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """First calls wait for the config's answer, however slow this machine is."""
    monkeypatch.setattr(following, "_CONFIG_WAIT_S", 15.0)


@pytest.fixture
def store(raw, service):
    """Writes the service config of this test's service."""

    def put(config) -> int:
        return raw.put(
            config_key(service).decode(), config if isinstance(config, str) else json.dumps(config)
        )

    yield put
    raw.delete(config_key(service).decode())


@pytest.fixture
def told():
    seen = []
    with etcd_grpc.listen(seen.append):
        yield seen


def policy_of(channel) -> str:
    explained = channel.explain()
    return "" if explained is None else explained.policy


def test_first_call_obeys_what_stands_in_etcd(etcd, service, echoes, announce, store):
    for echo in echoes:
        announce(echo.address)
    store(FIRST)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        assert len({who(call(b"x", timeout=5)) for _ in range(12)}) == 1


def test_a_change_is_followed_within_a_second_and_no_call_fails(etcd, service, echoes, announce, store):
    for echo in echoes:
        announce(echo.address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        wait_until(lambda: len({who(call(b"x", timeout=5)) for _ in range(12)}) == 3, "all are called")
        for policy in ("pick_first", "random", "least_request", "ring_hash", "round_robin"):
            store({"loadBalancingConfig": [{policy: {}}]})
            wait_until(lambda p=policy: [call(b"x", timeout=5), policy_of(channel) == p][1], policy)
        # Those that it has not used last connect while the first of them takes the calls.
        wait_until(lambda: len({who(call(b"x", timeout=5)) for _ in range(3)}) == 3, "all connected")
        counted = Counter(who(call(b"x", timeout=5)) for _ in range(30))
        assert set(counted.values()) == {10}


def test_a_deleted_key_hands_the_channel_back_to_its_own(etcd, service, echoes, announce, store, raw):
    announce(echoes[0].address)
    store(FIRST)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd, policy="random") as channel:
        channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=5)
        assert policy_of(channel) == "pick_first"
        raw.delete(config_key(service).decode())
        wait_until(lambda: policy_of(channel) == "random", "its own policy")


def test_nonsense_changes_nothing_and_is_told(etcd, service, echoes, announce, store, told):
    announce(echoes[0].address)
    store(FIRST)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        call(b"x", timeout=5)
        bad = [
            "{",
            "[" * 5000,
            json.dumps({"loadBalancingConfig": [{"no_such": {}}]}),
            "x" * 70_000,
            "\x00",
        ]
        for text in bad:
            store(text)

        def rejected():
            return [e for e in told if isinstance(e, events.ServiceConfigRejected)]

        wait_until(lambda: len(rejected()) == len(bad), "all rejected")
        assert any("known are" in event.why for event in rejected())
        assert policy_of(channel) == "pick_first"
        store({"loadBalancingConfig": [{"random": {}}]})
        wait_until(lambda: policy_of(channel) == "random", "a good one again")
        call(b"x", timeout=5)


def test_last_good_config_stays_over_a_restart(etcd, service, echoes, announce, store, told, tmp_path):
    for echo in echoes:
        announce(echo.address)
    store(FIRST)
    config = etcd_grpc.EtcdConfig((etcd,), cache_dir=tmp_path)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=config) as channel:
        channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=5)
        assert policy_of(channel) == "pick_first"
    wait_until(lambda: list(tmp_path.glob("*.config.json")), "saved")
    store("nonsense")
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=config) as channel:
        channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=5)
        wait_until(lambda: policy_of(channel) == "pick_first", "the saved one is used")
        store({"loadBalancingConfig": [{"random": {}}]})
        wait_until(lambda: policy_of(channel) == "random", "the next good one is followed")
    loaded = [event for event in told if isinstance(event, events.ServiceConfigLoaded)]
    assert [event.service for event in loaded] == [service]


async def test_nonsense_and_an_empty_cache_are_an_answer(etcd, service, store, tmp_path):
    store("nonsense")
    heard: list[object] = []
    with plane.using(etcd_grpc.EtcdConfig((etcd,), cache_dir=tmp_path)) as control:
        subscription = ConfigSubscription(asyncio.get_running_loop(), heard.append)
        loop = control.session.loop
        loop.call_soon_threadsafe(control.subscribe_config, service, subscription)
        await until(lambda: heard, "told that there is none")
        loop.call_soon_threadsafe(control.unsubscribe_config, service, subscription)
    assert heard == [None]


def test_timeouts_and_retries_reach_methods_that_exist(etcd, service, echoes, announce, store):
    announce(echoes[0].address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/Slow")
        call(b"0", timeout=5)
        store({"methodConfig": [{"name": [{"service": "echo"}], "timeout": "0.1s"}]})

        def limited() -> bool:
            try:
                call(b"0.3", timeout=5)
            except grpc.RpcError as error:
                return error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return False

        wait_until(limited, "the timeout of etcd's service config", 10)
        store(RETRY)
        wait_until(lambda: call._config.retry is not None, "its retry policy")
        assert call._config.timeout_s is None


def test_throttle_survives_a_change_that_does_not_concern_it(etcd, service, echoes, announce, store):
    announce(echoes[0].address)
    throttling = {"retryThrottling": {"maxTokens": 7, "tokenRatio": 0.5}}
    store(RETRY | throttling)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=5)
        dispatcher = channel._dispatcher
        before = dispatcher.throttle
        assert before.config.max_tokens == 7
        store(RETRY | throttling | FIRST)
        wait_until(lambda: policy_of(channel) == "pick_first", "changed")
        assert dispatcher.throttle is before
        store(FIRST)
        wait_until(lambda: dispatcher.throttle is None, "gone")


def test_a_policy_that_leaves_endpoints_out_may_come_and_go(etcd, service, echoes, announce, store):
    for echo in echoes:
        announce(echo.address)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        wait_until(lambda: len({who(call(b"x", timeout=5)) for _ in range(12)}) == 3, "all are called")
        store({"loadBalancingConfig": [{"subset": {"subsetSize": 1}}]})
        wait_until(lambda: len(channel.explain().endpoints) == 1, "one endpoint left")
        wait_until(lambda: len({who(call(b"x", timeout=5)) for _ in range(12)}) == 1, "it is called")
        store({"loadBalancingConfig": [{"round_robin": {}}]})
        wait_until(lambda: len(channel.explain().endpoints) == 3, "all again")
        wait_until(lambda: len({who(call(b"x", timeout=5)) for _ in range(12)}) == 3, "all are called")


def test_who_is_ejected_gets_calls_again_when_nobody_ejects_any_more(
    etcd, service, echoes, announce, store
):
    for echo in echoes:
        announce(echo.address)
    store({"loadBalancingConfig": [{"outlier_detection": {"consecutiveBaseEjectionTime": "300s"}}]})
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        call(b"x", timeout=5)
        abort = channel.unary_unary("/echo/Abort")

        def ejected() -> list[str]:
            return [e.address for e in channel.explain().endpoints if e.ejected_for_s is not None]

        def fail() -> list[str]:
            with pytest.raises(grpc.RpcError):
                abort(b"INTERNAL no", timeout=5)
            return ejected()

        wait_until(fail, "one is ejected")
        store({"loadBalancingConfig": [{"round_robin": {}}]})
        wait_until(lambda: not ejected(), "none is ejected")
        wait_until(lambda: len({who(call(b"x", timeout=5)) for _ in range(12)}) == 3, "all are called")


def test_a_channel_may_decline(etcd, service, echoes, announce, store, raw):
    announce(echoes[0].address)
    store(FIRST)
    options = [("grpc.service_config_disable_resolution", 1)]
    with etcd_grpc.insecure_channel(f"etcd:///{service}", options, etcd=etcd) as channel:
        channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=5)
        assert policy_of(channel) == "round_robin"


async def test_asyncio_channels_follow_it_too(etcd, service, echoes, announce, store):
    for echo in echoes:
        announce(echo.address)
    store(FIRST)
    async with etcd_grpc.aio.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        assert len({who(await call(b"x", timeout=5)) for _ in range(12)}) == 1
        store({"loadBalancingConfig": [{"round_robin": {}}]})
        await until(lambda: policy_of(channel) == "round_robin", "followed")
        await until(connected(channel, 3), "all connected")
        assert len({who(await call(b"x", timeout=5)) for _ in range(12)}) == 3


def test_a_target_with_a_query_finds_only_what_matches(etcd, service, echoes, raw):
    for echo, version in zip(echoes, ("v1", "v2", "v2"), strict=True):
        entry = {
            "Op": 0,
            "Addr": echo.address,
            "Metadata": {"version": version, "metadata": {"shard": 3}},
        }
        raw.put(f"{service}/{echo.address}", json.dumps(entry))
    target = f"etcd:///{service}?version=v2&shard=3"
    with etcd_grpc.insecure_channel(target, etcd=etcd) as channel:
        channel.subscribe(lambda _: None, try_to_connect=True)
        wait_until(connected(channel, 2), "both connected")
        call = channel.unary_unary("/echo/UnaryUnary")
        answered = {who(call(b"x", timeout=5)) for _ in range(20)}
        assert answered == {echoes[1].address, echoes[2].address}
    with etcd_grpc.insecure_channel(f"etcd:///{service}?version=v3", etcd=etcd) as channel:
        with pytest.raises(grpc.RpcError, match="leaves out all 3"):
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=5)
