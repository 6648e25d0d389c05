"""What multi-callables of both worlds have in common: one method, on whichever endpoint is picked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import grpc

from etcd_grpc.balancer.service_config import ServiceConfig
from etcd_grpc.channel.dispatch import Dispatcher
from etcd_grpc.channel.replay import replayed
from etcd_grpc.channel.subchannel import Subchannel

__all__ = ["BoundMethod"]

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)


class BoundMethod(Generic[C]):
    """Holds the real channels' own multi-callables of one method.

    They are made when an endpoint is first used and forgotten when it has left.  The balanced channel
    is held too: it must live as long as one of its stubs.

    Args:
        channel: The balanced channel.
        dispatcher: Where its endpoints come from.
        shape: The name of the channel's function that makes the multi-callable.
        arguments: That function's arguments; the method's path comes first.
    """

    __slots__ = (
        "__weakref__",
        "_arguments",
        "_channel",
        "_config",
        "_dispatcher",
        "_inner",
        "_replaying",
        "_shape",
    )

    # Wraps a real multi-callable so that the load reports in its answers are read.
    _reporting: ClassVar[staticmethod[[str, Any, Any], Any]]

    def __init__(self, channel: object, dispatcher: Dispatcher[C], shape: str, *arguments: Any) -> None:
        self._channel = channel
        self._dispatcher = dispatcher
        self._shape = shape
        self._arguments = arguments
        self._inner: dict[Subchannel[C], Any] = {}
        self._replaying: dict[Subchannel[C], Any] = {}
        dispatcher.adopt(self)

    def configure(self, config: ServiceConfig) -> None:
        """The service config is now this one.  Each call reads ``_config`` once, when it begins."""
        self._config = config.method(self._arguments[0])
        if self._inner or self._replaying:  # the policy may be another, and want reports or not
            self._inner, self._replaying = {}, {}

    def _bind(self, subchannel: Subchannel[C]) -> Any:
        """The real multi-callable of ``subchannel``.  Any thread."""
        return self._inner.get(subchannel) or self._make(self._inner, subchannel, self._arguments)

    def _bind_replaying(self, subchannel: Subchannel[C]) -> Any:
        """The same for requests that a ``ReplayBuffer`` hands out."""
        method, serializer, *others = self._arguments
        return self._replaying.get(subchannel) or self._make(
            self._replaying, subchannel, (method, replayed(serializer), *others)
        )

    def _make(
        self, made: dict[Subchannel[C], Any], subchannel: Subchannel[C], arguments: Sequence[Any]
    ) -> Any:
        for known in made.copy():
            if known.closed:
                made.pop(known, None)
        inner = getattr(subchannel.channel, self._shape)(*arguments)
        if self._dispatcher.wants_reports:
            inner = self._reporting(self._shape, inner, subchannel)
        made[subchannel] = inner
        return inner

    def _bind_raw(self, subchannel: Subchannel[C]) -> Any:
        """The same for a request that is serialized already; not kept, since it is seldom needed."""
        method, _, *others = self._arguments
        return getattr(subchannel.channel, self._shape)(method, None, *others)

    def _defaults(
        self, timeout: float | None, wait_for_ready: bool | None
    ) -> tuple[float | None, bool]:
        """Deadline (on time.monotonic's clock) and waiting, with what the service config says."""
        config = self._config
        if config.timeout_s is not None:
            timeout = config.timeout_s if timeout is None else min(timeout, config.timeout_s)
        waits = config.wait_for_ready if wait_for_ready is None else wait_for_ready
        return None if timeout is None else time.monotonic() + timeout, bool(waits)
