"""What tests of calls share: a retry policy, who answered, a port where nobody listens."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from etcd_grpc.devcluster import ports
from etcd_grpc.errors import ConfigurationError


def retry_on(*codes: str, backoff: str = "0.01s") -> dict[str, Any]:
    """A service config that retries every method on these; the first time after about ``backoff``."""
    policy = {
        "maxAttempts": 4,
        "initialBackoff": backoff,
        "maxBackoff": "60s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": codes,
    }
    return {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}


RETRY = retry_on("UNAVAILABLE")


def who(reply: bytes) -> str:
    """The address of the echo server that answered."""
    return reply.split()[0].decode()


def free_port(in_a_row: int = 1) -> int:
    """The first of so many ports on which nobody listens, and which nobody gets by chance."""
    while True:
        found = ports.reserve_free(1)
        found.release()
        (first,) = found.ports
        with contextlib.suppress(ConfigurationError):
            ports.reserve(range(first, first + in_a_row)).release()
            return first


def statuses(raw: Any, service: str) -> list[str]:
    """What the instances in etcd (a ``RawEtcd``) say of themselves."""
    values = (json.loads(kv.value) for kv in raw.get(f"{service}/").values())
    return [value["Metadata"]["status"] for value in values]
