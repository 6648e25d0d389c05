"""The end of a channel that was dropped without being closed.

A garbage collection finds it on any thread: on one of gRPC's, which the end of a connection waits for,
or on the one that keeps leases and watches.  So nothing may block here.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

from etcd_grpc.channel.dispatch import Dispatcher

__all__ = ["end_unclosed"]


def end_unclosed(channel: object, dispatcher: Dispatcher[Any], advice: str) -> None:
    """Warn of ``channel`` and end what it has started, if there is anything.

    Args:
        channel: Whose finalizer this is.
        dispatcher: Its dispatcher.
        advice: How it should have been closed.
    """
    if not dispatcher.started or (running := dispatcher.shut()) is None:
        return
    if not running.loop.is_closed():
        running.loop.call_soon_threadsafe(dispatcher.finish, running)
    release = running.plane.release
    try:
        threading.Thread(target=release, name="etcd-grpc-release", daemon=True).start()
    except RuntimeError:  # the interpreter ends and lets no thread begin
        release()
    warnings.warn(
        f"channel {dispatcher.spec.target} was not closed; {advice}",
        ResourceWarning,
        stacklevel=3,
        source=channel,
    )
