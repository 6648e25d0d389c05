"""A key with a chosen id stands under a foreign lease: of a live process, or of a dead one?

The rule by which that is seen is ``ownership.Holder``'s; here etcd is asked, again and again, until the
answer is clear: a third of the TTL at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from etcd_grpc.errors import EtcdError, EtcdUnavailableError
from etcd_grpc.etcd import methods
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.etcd.backoff import Backoff
from etcd_grpc.etcd.session import Session
from etcd_grpc.ownership import Holder, Life

__all__ = ["decide"]

_LOOK_EVERY_S = 0.3


async def decide(session: Session, lease_id: int, on_trouble: Callable[[Exception], None]) -> str:
    """Why the key under ``lease_id`` is not ours; "" if its holder is gone.

    Args:
        session: The session with etcd.
        lease_id: Of the one who holds the key.
        on_trouble: Told each time that etcd cannot be reached; it is asked again.
    """
    holder, backoff = Holder(), Backoff(session.rng, free=1)
    while True:
        now = session.loop.time()
        try:
            answer = await session.transport.call(
                methods.LEASE_TIME_TO_LIVE, rpc.LeaseTimeToLiveRequest(ID=lease_id)
            )
        except EtcdUnavailableError as error:
            on_trouble(error)
            await asyncio.sleep(backoff.next_delay())
            continue
        except EtcdError as error:
            return str(error)
        match holder.observe(answer.TTL, answer.grantedTTL, now):
            case Life.ALIVE:
                return "its process is alive"
            case Life.GONE:
                return ""
            case Life.UNKNOWN:
                await asyncio.sleep(_LOOK_EVERY_S)
