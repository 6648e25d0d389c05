"""Tells an application's callbacks the state of a balanced channel.

As on a plain channel, callbacks run on a thread that exists only while there is something to tell; so
an application's code never runs on the thread that keeps leases and watches.  Each callback hears the
latest state; states in between may be left out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import grpc

__all__ = ["StateWatchers"]

_log = logging.getLogger("etcd_grpc.channel")

Callback = Callable[[grpc.ChannelConnectivity], None]


class StateWatchers:
    """The callbacks of one channel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._told: list[tuple[Callback, grpc.ChannelConnectivity | None]] = []
        self._state = grpc.ChannelConnectivity.IDLE
        self._telling = False

    def add(self, callback: Callback, state: grpc.ChannelConnectivity) -> None:
        """Tell ``callback`` the state, which now is ``state``, from now on."""
        with self._lock:
            self._state = state
            self._told.append((callback, None))
            self._tell_soon()

    def remove(self, callback: Callback) -> None:
        """Tell ``callback`` nothing more."""
        with self._lock:
            for index, (known, _) in enumerate(self._told):
                if known == callback:
                    del self._told[index]
                    return

    def clear(self) -> None:
        """Tell nobody anything more: the channel is closed."""
        with self._lock:
            self._told.clear()

    def changed(self, state: grpc.ChannelConnectivity) -> None:
        """The channel's state is now ``state``."""
        with self._lock:
            self._state = state
            self._tell_soon()

    def _tell_soon(self) -> None:
        if self._told and not self._telling:
            self._telling = True
            threading.Thread(target=self._tell, name="etcd-grpc-callbacks", daemon=True).start()

    def _next(self) -> tuple[Callback, grpc.ChannelConnectivity] | None:
        with self._lock:
            for index, (callback, told) in enumerate(self._told):
                if told is not self._state:
                    self._told[index] = (callback, self._state)
                    return callback, self._state
            self._telling = False
            return None

    def _tell(self) -> None:
        while (item := self._next()) is not None:
            callback, state = item
            try:
                callback(state)
            except Exception:  # noqa: BLE001 - the application's code, isolated
                _log.exception("a connectivity callback raised")
