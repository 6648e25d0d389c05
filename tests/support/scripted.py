"""Scripted servers as processes (``scripted_server.py``), and what they saw."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from tests.support.calls import RETRY
from tests.support.waiting import until, wait_until

import etcd_grpc

SERVER = Path(__file__).with_name("scripted_server.py")
_ids = itertools.count()


class ScriptedServer:
    """One server that does what requests tell it; ended with the ``with`` block."""

    def __init__(self, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), str(port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert line[:1] == ["ready"], f"the scripted server did not start: {line}"
        self.address = line[1]
        self._channel = grpc.insecure_channel(self.address)

    def seen(self, name: str) -> list[dict[str, Any]]:
        """What it saw of the calls with this id, the oldest first."""
        told = self._channel.unary_unary("/script/Log")(name.encode(), timeout=10)
        events: list[dict[str, Any]] = json.loads(told)
        return events

    def saw(self, name: str) -> list[str]:
        """The same, without the particulars."""
        return [event["what"] for event in self.seen(name)]

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()
        if self.process.poll() is None:
            self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def announced(announce: Callable[[str], object], count: int) -> Iterator[list[ScriptedServer]]:
    """So many of them, in etcd."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(ScriptedServer()) for _ in range(count)]
        for server in made:
            announce(server.address)
        yield made


@contextlib.contextmanager
def opened(
    etcd: str, service: str, config: Any = RETRY, *, count: int = 2, **arguments: Any
) -> Iterator[etcd_grpc.Channel]:
    """A channel, connected to so many; ends with nothing in flight."""
    with etcd_grpc.insecure_channel(
        f"etcd:///{service}", etcd=etcd, service_config=config, **arguments
    ) as channel:
        channel.subscribe(lambda _state: None, try_to_connect=True)
        wait_until(connected(channel, count), "all connected")
        yield channel
        wait_until(lambda: not in_flight(channel), "nothing in flight")


@contextlib.asynccontextmanager
async def aio_opened(
    etcd: str, service: str, config: Any = RETRY, *, count: int = 2, **arguments: Any
) -> AsyncIterator[Any]:
    """As ``opened``, in asyncio; ends with no task either."""
    async with etcd_grpc.aio.insecure_channel(
        f"etcd:///{service}", etcd=etcd, service_config=config, **arguments
    ) as channel:
        channel.get_state(try_to_connect=True)
        await until(connected(channel, count), "all connected")
        before = asyncio.all_tasks()
        yield channel
        await until(lambda: not in_flight(channel), "nothing in flight")
        own = asyncio.current_task()
        await until(lambda: asyncio.all_tasks() - {own} <= before, "no task is left")


def script(acts: dict[str, dict[str, Any]] | None = None) -> tuple[str, bytes]:
    """A new id, and the request that says what each server is to do."""
    name = f"call-{next(_ids)}"
    return name, json.dumps({"id": name, "acts": acts or {}}).encode()


def connected(channel: Any, count: int) -> Callable[[], bool]:
    """Whether a balanced channel, which has begun, is connected to so many endpoints and uses them."""

    def all_connected() -> bool:
        told = channel.explain()
        states = [row.state for row in told.endpoints] if told else []
        picker = channel._dispatcher._picker  # published a moment after the states
        return states.count("READY") == count == len(picker or ())

    return all_connected


def in_flight(channel: Any) -> int:
    """The calls under way at all endpoints of a balanced channel."""
    return sum(row.in_flight for row in channel.explain().endpoints)


def hedge(attempts: int, delay: str) -> dict[str, Any]:
    """A service config that hedges every method; UNAVAILABLE is not fatal."""
    policy = {
        "maxAttempts": attempts,
        "hedgingDelay": delay,
        "nonFatalStatusCodes": ["UNAVAILABLE"],
    }
    return {"methodConfig": [{"name": [{}], "hedgingPolicy": policy}]}
