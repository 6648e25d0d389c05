"""Several breakable proxies as one: what stands between a client and all of etcd, for example."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from etcd_grpc.devcluster.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

__all__ = ["Proxies"]


class Proxies:
    """One :class:`Proxy` for each target, broken and mended together or one by one (``proxies[0]``).

    Raises as :class:`Proxy`.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = tuple(targets)
        self._stack = contextlib.ExitStack()
        self._proxies: tuple[Proxy, ...] = ()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The addresses of the proxies, in the order of the targets."""
        return tuple(proxy.address for proxy in self._proxies)

    def cut(self) -> None:
        """See :meth:`Proxy.cut`."""
        for proxy in self._proxies:
            proxy.cut()

    def refuse(self) -> None:
        """See :meth:`Proxy.refuse`."""
        for proxy in self._proxies:
            proxy.refuse()

    def stall(self) -> None:
        """See :meth:`Proxy.stall`."""
        for proxy in self._proxies:
            proxy.stall()

    def half_open(self) -> None:
        """See :meth:`Proxy.half_open`."""
        for proxy in self._proxies:
            proxy.half_open()

    def delay(self, seconds: float) -> None:
        """See :meth:`Proxy.delay`."""
        for proxy in self._proxies:
            proxy.delay(seconds)

    def reset_connections(self) -> int:
        """See :meth:`Proxy.reset_connections`; returns how many there were in all."""
        return sum(proxy.reset_connections() for proxy in self._proxies)

    def mend(self) -> None:
        """See :meth:`Proxy.mend`."""
        for proxy in self._proxies:
            proxy.mend()

    def __getitem__(self, index: int) -> Proxy:
        return self._proxies[index]

    def __len__(self) -> int:
        return len(self._proxies)

    def __iter__(self) -> Iterator[Proxy]:
        return iter(self._proxies)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            self._proxies = tuple(undo.enter_context(Proxy(target)) for target in self._targets)
            self._stack = undo.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
