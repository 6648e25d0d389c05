"""Why there is no endpoint for a call, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc

from etcd_grpc.channel.subchannel import Subchannel

__all__ = ["why_none"]

_SHOWN = 5


def why_none(
    service: str,
    subchannels: Sequence[Subchannel[Any]],
    left_out: int,
    policy: str,
    *,
    refused: bool,
    diagnosis: Callable[[Iterable[str]], str],
    last_error: str,
) -> str:
    """Of a service whose endpoints are known.

    Args:
        service: Its name.
        subchannels: All that the policy wants to be connected.
        left_out: How many endpoints it leaves out.
        policy: Which it is.
        refused: It allows none of those that are connected.
        diagnosis: Says what is known of one of these addresses, which cannot be connected.
        last_error: What gRPC said of one of them; "" if that is not known.
    """
    if not subchannels and left_out:
        return f"the policy ({policy}) leaves out all {left_out} instances of service {service}"
    if not subchannels:
        return f"no instance of service {service} takes calls"
    connected = sum(s.state is grpc.ChannelConnectivity.READY for s in subchannels)
    if connected and refused:
        which = f"the policy ({policy}) allows none of the {connected} connected"
        return f"{which} instances of service {service}"
    told = next((s.told_why() for s in subchannels if s.misplaced), "")
    if told and not connected:
        return f"no instance of service {service} can be called: {told}"
    count = len(subchannels)
    which = "the only instance" if count == 1 else f"none of the {count} instances"
    verb = "is not connected" if count == 1 else "is connected"
    shown = ", ".join(s.endpoint.address for s in subchannels[:_SHOWN])
    more = ", ..." if count > _SHOWN else ""
    found = diagnosis(s.endpoint.address for s in subchannels)
    last = f"; last error: {last_error}" if last_error and not found else ""
    return f"{which} of service {service} {verb} ({found or shown + more}){last}"
