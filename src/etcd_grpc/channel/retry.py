"""Whether a call that failed is sent again, and when.  Pure.

Two reasons, after gRFC A6:

- *It never left.*  The connection was gone before the call was on it, so no server has seen it.  It is
  sent again at once, by any policy or none ("transparent retry").  C-core does this itself as long as
  the same address can be reached again; past that it reports the failure to connect.
- *The retry policy says so*: the code is listed, attempts and tokens are left, and the server has not
  asked to stop by ``grpc-retry-pushback-ms``.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from typing import Any

import grpc

from etcd_grpc.balancer.service_config import RetryPolicy, Throttling

__all__ = ["MAX_TRANSPARENT", "Attempts", "Throttle", "never_left", "numbered", "pushback_ms"]

_JITTER = 0.2
_PUSHBACK = "grpc-retry-pushback-ms"
_PREVIOUS = "grpc-previous-rpc-attempts"
_MAX_DIGITS = 10  # it is a 32-bit number
# Transparent retries need no policy, but an end: with every endpoint refusing, the call fails.
MAX_TRANSPARENT = 20
# How the failures begin of a channel whose policy is pick_first, and with health checking round_robin.
_NOT_SENT = ("failed to connect to all addresses", "connections to all backends failing")


def never_left(code: grpc.StatusCode, details: str | None, address: str, connected: bool) -> bool:
    """Whether a failure means that no server saw the call.

    gRPC's Python API does not tell a status that a server sent from one made by the client; but the
    client's own have a fixed beginning and names the address that it could not reach, and the
    subchannel is then not connected.
    """
    if connected or code is not grpc.StatusCode.UNAVAILABLE or not details:
        return False
    port = address.rpartition(":")[2]
    return details.startswith(_NOT_SENT) and f":{port}: " in details


class Throttle:
    """The token bucket of gRFC A6, shared by all calls of a channel."""

    def __init__(self, config: Throttling) -> None:
        self.config = config
        self._tokens = config.max_tokens
        self._lock = threading.Lock()  # guards _tokens

    def succeeded(self) -> None:
        """A call succeeded."""
        with self._lock:
            self._tokens = min(self.config.max_tokens, self._tokens + self.config.token_ratio)

    def allows(self) -> bool:
        """Whether a call may be sent once more than it was."""
        with self._lock:
            return self._tokens > self.config.max_tokens / 2

    def failed(self) -> bool:
        """An attempt failed in a way that counts; return whether another one is allowed."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1)
            return self._tokens > self.config.max_tokens / 2


class Attempts:
    """The attempts of one call.

    Args:
        policy: None without a retry policy.
        throttle: None without throttling.
        rng: The source of jitter.
    """

    def __init__(
        self, policy: RetryPolicy | None, throttle: Throttle | None, rng: random.Random
    ) -> None:
        self._policy = policy
        self._throttle = throttle
        self._rng = rng
        self._made = 1
        self._backoffs = 0  # since the beginning, or since the server's last wish
        self._transparent = 0

    @property
    def previous(self) -> int:
        """How many attempts were made that a server may have seen, before the next one."""
        return self._made - 1

    def next_delay(
        self,
        code: grpc.StatusCode,
        trailers: Iterable[Any] | None,
        *,
        unseen: bool,
    ) -> float | None:
        """After a failed attempt: seconds until the next one, or None to give up.

        Args:
            code: The status of the attempt.
            trailers: Its trailing metadata, as pairs.
            unseen: What ``never_left`` says of it.
        """
        if unseen and self._transparent < MAX_TRANSPARENT:
            self._transparent += 1
            return 0.0
        policy = self._policy
        if policy is None or code not in policy.retryable:
            return None
        pushback = pushback_ms(trailers)
        if self._throttle is not None and not self._throttle.failed():
            return None
        if self._made >= policy.max_attempts or (pushback is not None and pushback < 0):
            return None
        self._made += 1
        if pushback is not None:
            self._backoffs = 0
            return pushback / 1000
        try:
            backoff = policy.initial_backoff_s * policy.backoff_multiplier**self._backoffs
        except OverflowError:
            backoff = policy.max_backoff_s
        self._backoffs += 1
        return min(backoff, policy.max_backoff_s) * self._rng.uniform(1 - _JITTER, 1 + _JITTER)


def numbered(metadata: Any, previous: int) -> Any:
    """The headers of an attempt, with the number of those before it (gRFC A6).

    C-core takes that header away unless its own retries are off (option ``grpc.enable_retries``).
    """
    return (*(metadata or ()), (_PREVIOUS, str(previous))) if previous else metadata


def pushback_ms(trailers: Iterable[Any] | None) -> int | None:
    """The server's wish; what is no number means "do not retry", as in gRFC A6."""
    for name, value in trailers or ():
        if name == _PUSHBACK:
            text = value.decode(errors="replace") if isinstance(value, bytes) else value
            good = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
            return int(text) if good else -1
    return None
