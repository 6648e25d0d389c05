"""What tests of calls share: a retry policy, who answered, a port where nobody listens."""

from __future__ import annotations

import json
import socket
from typing import Any


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
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def statuses(raw: Any, service: str) -> list[str]:
    """What the instances in etcd (a ``RawEtcd``) say of themselves."""
    values = (json.loads(kv.value) for kv in raw.get(f"{service}/").values())
    return [value["Metadata"]["status"] for value in values]
