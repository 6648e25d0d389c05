"""Mass disappearance: when most endpoints vanish at once, it is rather the registry that is ill.  Pure.

The rule (Eureka's self preservation, turned round): if more than half of a service's endpoints vanish
within ``WINDOW_S`` without having been withdrawn, and fewer than half as many as there were are left
or have come, they are kept for ``HOLD_S``.  A channel calls only those of them to which it is
connected, so keeping a dead one costs nothing, and losing a living one would cost every call.  Only
endpoints that take calls count, on either side.  So whoever was marked as draining before its key went
has been withdrawn, and is gone at once; one of weight 0 takes nobody's place; and a deployment that
replaces one instance after the other leaves as many as there were.

The time arrives as an argument, in seconds on one monotonic clock.
"""

from __future__ import annotations

from etcd_grpc.model import Endpoint

__all__ = ["HOLD_S", "WINDOW_S", "DisappearanceGuard"]

WINDOW_S = 10.0
HOLD_S = 60.0


class DisappearanceGuard:
    """Remembers who has vanished, and says who is to be kept.

    Args:
        hold_s: For how long; 0: nobody is kept.
    """

    def __init__(self, hold_s: float = HOLD_S) -> None:
        self.hold_s = hold_s
        # By key, in order of time: when, which, and how many there were before.
        self._vanished: dict[str, tuple[float, Endpoint, int]] = {}
        self._expected = 0  # how many there were before those who are held
        self._held: dict[str, Endpoint] = {}
        self._until = 0.0

    @property
    def held(self) -> frozenset[str]:
        """The keys of those that are kept.  Any thread."""
        return frozenset(self._held)

    @property
    def until(self) -> float | None:
        """When they are given up; None: nobody is held."""
        return self._until if self._held else None

    def appeared(self, key: str) -> None:
        """The endpoint is (again) in etcd."""
        self._vanished.pop(key, None)
        self._held.pop(key, None)

    def vanished(self, endpoint: Endpoint, before: int, now: float) -> None:
        """The endpoint is gone, one of ``before``, and nobody had said that it would go."""
        self._vanished.pop(endpoint.key, None)
        self._vanished[endpoint.key] = (now, endpoint, before)

    def newly_held(self, present: int, now: float) -> list[Endpoint]:
        """Who of the vanished is to be kept from now on, given that ``present`` are in etcd."""
        for key, (when, _, _) in list(self._vanished.items()):
            if when > now - WINDOW_S:
                break
            del self._vanished[key]
        if not self._vanished or not self.hold_s:
            return []
        _, _, before = next(iter(self._vanished.values()))
        expected = max(before, self._expected) if self._held else before
        # No key is in both: one that is held is not in etcd, so it cannot vanish.
        missing = len(self._vanished) + len(self._held)
        if 2 * missing <= expected or 2 * present >= expected:
            return []
        kept = [endpoint for _, endpoint, _ in self._vanished.values()]
        self._vanished.clear()
        self._expected = expected
        if not self._held:
            self._until = now + self.hold_s
        self._held |= {endpoint.key: endpoint for endpoint in kept}
        return kept

    def given_up(self, now: float) -> list[Endpoint]:
        """Who has been kept for long enough."""
        if not self._held or now < self._until:
            return []
        dropped = list(self._held.values())
        self._held.clear()
        return dropped
