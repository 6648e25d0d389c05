"""What the contract tests share: servers, and the worlds in which each test runs.

A *world* says how a channel is made: a plain one to the first server, or a balanced one over one server
or three; ``cold`` ones have never made a call; ``hedged`` ones would send each call once more if it
took very long, ``retrying`` ones if it failed in a way in which none does.  Tests know nothing of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from tests.support.calls import retry_on

import etcd_grpc

__all__ = ["CALLS", "CHANNELS", "ContractServer", "World", "astate", "pairs", "state"]

SERVER = Path(__file__).with_name("contract_server.py")
# Where calls are looked at, and where channels are.
CALLS = [
    *("plain", "plain-cold", "one", "three", "three-cold"),
    *("hedged", "hedged-cold", "retrying", "retrying-cold"),
]
HEDGED = {"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "60s"}}]}
RETRYING = retry_on("DATA_LOSS")
CHANNELS = ["plain", "one", "three"]


class ContractServer:
    """One server process; ended with the ``with`` block."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, str(SERVER), *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = self.tls_address = ""

    def ready(self) -> ContractServer:
        """Wait until it listens."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().split()
        assert line[:1] == ["ready"], f"the contract server did not start: {line}"
        self.address, self.tls_address = line[1], line[-1]
        self._channel = grpc.insecure_channel(self.address)
        return self

    def events(self, name: str) -> list[str]:
        """What has happened to the hanging call ``name``."""
        ask = self._channel.unary_unary("/contract/Events")
        events: list[str] = json.loads(ask(name.encode(), timeout=10))
        return events

    def release(self, name: str) -> None:
        """Let the held call ``name`` go."""
        self._channel.unary_unary("/contract/Release")(name.encode(), timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if hasattr(self, "_channel"):
            self._channel.close()
        self._process.kill()
        self._process.wait(timeout=10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@dataclass(frozen=True)
class World:
    """How channels are made.

    Attributes:
        kind: The test's parameter.
        target: What a channel function is given.
        etcd: None for a plain channel.
        servers: Those behind it, as far as they are ours.
    """

    kind: str
    target: str
    etcd: str | None
    servers: Sequence[ContractServer] = ()

    @property
    def balanced(self) -> bool:
        return self.etcd is not None

    @property
    def cold(self) -> bool:
        """Whether the first call of a test is to be the first of its channel."""
        return self.kind.endswith("-cold")

    def channel(self, *arguments: Any, **keywords: Any) -> grpc.Channel:
        """A new channel; the arguments are those of ``grpc.insecure_channel`` after the target."""
        if self.balanced:
            self._configure(keywords)
            return etcd_grpc.insecure_channel(self.target, *arguments, etcd=self.etcd, **keywords)
        return grpc.insecure_channel(self.target, *arguments, **keywords)

    def secure_channel(self, *arguments: Any, **keywords: Any) -> grpc.Channel:
        if self.balanced:
            return etcd_grpc.secure_channel(self.target, *arguments, etcd=self.etcd, **keywords)
        return grpc.secure_channel(self.target, *arguments, **keywords)

    def aio_channel(self, *arguments: Any, **keywords: Any) -> grpc.aio.Channel:
        if self.balanced:
            self._configure(keywords)
            return etcd_grpc.aio.insecure_channel(self.target, *arguments, etcd=self.etcd, **keywords)
        return grpc.aio.insecure_channel(self.target, *arguments, **keywords)

    def aio_secure_channel(self, *arguments: Any, **keywords: Any) -> grpc.aio.Channel:
        if self.balanced:
            return etcd_grpc.aio.secure_channel(self.target, *arguments, etcd=self.etcd, **keywords)
        return grpc.aio.secure_channel(self.target, *arguments, **keywords)

    def _configure(self, keywords: dict[str, Any]) -> None:
        if self.kind.startswith("hedged"):
            keywords.setdefault("service_config", HEDGED)
        elif self.kind.startswith("retrying"):
            keywords.setdefault("service_config", RETRYING)

    def events(self, name: str) -> list[str]:
        """What has happened to the hanging call ``name``, on whichever server."""
        return [event for server in self.servers for event in server.events(name)]

    def release(self, name: str) -> None:
        """Let the held call ``name`` go, wherever it is."""
        for server in self.servers:
            server.release(name)


def state(call: Any) -> tuple[Any, ...]:
    """Code, details and both metadata of a call that has ended."""
    return call.code(), call.details(), pairs(call.initial_metadata()), pairs(call.trailing_metadata())


def pairs(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [(name, value) for name, value in metadata or ()]


async def astate(call: Any) -> tuple[Any, ...]:
    """As ``state``, of an asyncio call."""
    code, details = await call.code(), await call.details()
    return code, details, pairs(await call.initial_metadata()), pairs(await call.trailing_metadata())
