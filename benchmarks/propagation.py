"""How long a change in etcd takes to reach a channel.

A new endpoint is put into a three-member etcd; from the return of that put we count until the endpoint
is connected and can be picked by the next call.  Each endpoint has an address of its own, so each is a
new connection.  The oldest is deleted again, so the set keeps its size, and the next change waits a
random moment, so that it does not run in step with anybody's timer.

Beside it, in the same run and for the same puts, a bare watch stream at the same etcd member: what is
left after subtracting it is ours (decoding, connecting, publishing).  An event that arrives before the
put has returned counts as 0.
"""

from __future__ import annotations

import collections
import contextlib
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import grpc

import etcd_grpc
from benchmarks.echo_server import WHERE
from benchmarks.inside import etcd_member, pickable
from benchmarks.limits import allow_open_files
from benchmarks.outcome import BenchmarkError, Outcome, Size
from benchmarks.stage import Writer, loopback_addresses, start_echo_servers
from etcd_grpc.devcluster import Cluster
from etcd_grpc.etcd import methods, rpc_pb2
from etcd_grpc.processes.children import Children

__all__ = ["run"]

_SERVICE = "propagation"
_CHANGES = {Size.FULL: 500, Size.QUICK: 120, Size.TINY: 5}
_WARM_UP = {Size.FULL: 20, Size.QUICK: 20, Size.TINY: 1}
_KEPT = 10  # endpoints that stay in the set at any time
_PAUSE_S = 0.02  # at most, between changes
_POLL_S = 0.0002
_TIMEOUT_S = 20.0


@dataclass(slots=True)
class _Times:
    """Milliseconds for each change."""

    put: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    pickable: list[float] = field(default_factory=list)


def run(size: Size) -> Outcome:
    """Measure over many changes, with their puts through all members in turn."""
    changes, warm_up = _CHANGES[size], _WARM_UP[size]
    allow_open_files(_KEPT + 300)  # those that have left are closed a second later
    with contextlib.ExitStack() as stack:
        children = stack.enter_context(Children("benchmark servers"))
        cluster = stack.enter_context(Cluster(3))
        ports = start_echo_servers(children, 1, "0.0.0.0")
        writer = stack.enter_context(Writer(cluster.endpoints))
        addresses = loopback_addresses(_KEPT + warm_up + changes, ports)
        for address in addresses[:_KEPT]:
            writer.put(_SERVICE, address)
        channel = stack.enter_context(
            etcd_grpc.insecure_channel(f"etcd:///{_SERVICE}", etcd=cluster.endpoints)
        )
        channel.unary_unary(WHERE)(b"", timeout=_TIMEOUT_S, wait_for_ready=True)
        _until(lambda: len(pickable(channel)) == _KEPT, "the first endpoints are connected")
        raw = stack.enter_context(_raw_watch(etcd_member(channel)))
        times = _change(channel, writer, raw, addresses)
    return Outcome(_figures(times, warm_up), {"changes": changes, "endpoints": _KEPT, "members": 3})


def _change(
    channel: etcd_grpc.Channel, writer: Writer, raw: dict[bytes, float], addresses: Sequence[str]
) -> _Times:
    times = _Times()
    rng = random.Random(1)
    kept = collections.deque(addresses[:_KEPT])
    for number, address in enumerate(addresses[_KEPT:]):
        began = time.perf_counter()
        writer.put(_SERVICE, address, member=number)
        returned = time.perf_counter()
        at = _until(lambda address=address: _takes(channel, address), f"{address} can be picked")  # type: ignore[misc]
        key = writer.key(_SERVICE, address)
        _until(lambda key=key: key in raw, f"the bare watch tells of {address}")  # type: ignore[misc]
        times.put.append((returned - began) * 1000)
        times.pickable.append((at - returned) * 1000)
        times.raw.append(max(0.0, raw[key] - returned) * 1000)
        kept.append(address)
        writer.delete(_SERVICE, kept.popleft())
        _until(lambda: len(pickable(channel)) == _KEPT, "the oldest endpoint has left")
        time.sleep(rng.uniform(0, _PAUSE_S))
        if number % 100 == 99:
            print(f"{number + 1} changes", file=sys.stderr)
    return times


def _takes(channel: etcd_grpc.Channel, address: str) -> bool:
    return any(subchannel.endpoint.address == address for subchannel in pickable(channel))


def _until(condition: Callable[[], bool], what: str) -> float:
    """Look often until ``condition`` holds; return when that was seen, on time.perf_counter's clock.

    Raises:
        BenchmarkError: It does not.
    """
    end = time.perf_counter() + _TIMEOUT_S
    while not condition():
        if time.perf_counter() > end:
            raise BenchmarkError(f"not within {_TIMEOUT_S:g} s: {what}")
        time.sleep(_POLL_S)
    return time.perf_counter()


@contextlib.contextmanager
def _raw_watch(member: str) -> Iterator[dict[bytes, float]]:
    """A bare watch stream; yields what it fills: key -> when it was put (time.perf_counter)."""
    prefix = f"{_SERVICE}/".encode()
    create = rpc_pb2.WatchCreateRequest(key=prefix, range_end=methods.prefix_end(prefix))
    seen: dict[bytes, float] = {}
    done = threading.Event()
    with grpc.insecure_channel(member) as channel:
        watch = channel.stream_stream(
            methods.WATCH.path, methods.WATCH.serialize, methods.WATCH.deserialize
        )

        def requests() -> Iterator[rpc_pb2.WatchRequest]:
            yield rpc_pb2.WatchRequest(create_request=create)
            done.wait()

        responses = watch(requests())
        next(responses)  # "created": from here on nothing is missed

        def read() -> None:
            with contextlib.suppress(grpc.RpcError):
                for response in responses:
                    now = time.perf_counter()
                    for event in response.events:
                        seen.setdefault(event.kv.key, now)

        reader = threading.Thread(target=read, name="raw-watch")
        reader.start()
        try:
            yield seen
        finally:
            done.set()
            responses.cancel()
            reader.join()


def _figures(times: _Times, warm_up: int) -> dict[str, float]:
    measured, raw, put = times.pickable[warm_up:], times.raw[warm_up:], times.put[warm_up:]
    return {
        "p50_ms": _percentile(measured, 50),
        "p99_ms": _percentile(measured, 99),
        "max_ms": round(max(measured), 3),
        "raw_watch_p50_ms": _percentile(raw, 50),
        "raw_watch_p99_ms": _percentile(raw, 99),
        "put_p50_ms": _percentile(put, 50),
    }


def _percentile(values: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 3)
