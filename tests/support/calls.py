"""What tests of calls share: a retry policy, who answered, a port where nobody listens."""

from __future__ import annotations

import atexit
import json
import socket
from typing import Any

from etcd_grpc.devcluster.ports import LOOPBACK, reserve, reserve_free
from etcd_grpc.errors import ConfigurationError


def retry_on(*codes: str) -> dict[str, Any]:
    """A service config that retries every method on these."""
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": codes,
    }
    return {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}


RETRY = retry_on("UNAVAILABLE")


def who(reply: bytes) -> str:
    """The address of the echo server that answered."""
    return reply.split()[0].decode()


def free_port() -> int:
    """A port on which nobody listens, and nobody will by chance while this process lives.

    It stays bound, as in ``devcluster.ports``: whoever is given it may listen beside us, alone or with
    others that share it.  So does the next one, for a program that takes two.
    """
    while True:
        reservation = reserve_free(1)
        (port,) = reservation.ports
        try:
            atexit.register(reserve([port + 1]).release)
            break
        except ConfigurationError:
            reservation.release()
    held = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        held.setsockopt(socket.SOL_SOCKET, option, 1)
    held.bind((LOOPBACK, port))
    atexit.register(held.close)
    reservation.release()
    return port


def statuses(raw: Any, service: str) -> list[str]:
    """What the instances in etcd (a ``RawEtcd``) say of themselves."""
    values = (json.loads(kv.value) for kv in raw.get(f"{service}/").values())
    return [value["Metadata"]["status"] for value in values]
