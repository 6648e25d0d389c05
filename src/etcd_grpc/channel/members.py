"""Which endpoints of a service get a connection, where the policy leaves some out.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from etcd_grpc.balancer.balancer import Balancer
from etcd_grpc.model import Change, Endpoint, Put, Remove

__all__ = ["Members"]


class Members:
    """All endpoints of a service, by their keys."""

    def __init__(self) -> None:
        self._known: dict[str, Endpoint] = {}

    def note(self, changes: Sequence[Change]) -> None:
        """Follow changes of the endpoints."""
        for change in changes:
            if isinstance(change, Put):
                self._known[change.key] = change.endpoint
            else:
                self._known.pop(change.key, None)

    def eligible(self) -> list[Endpoint]:
        """Those that would take calls.  Any thread."""
        return [endpoint for endpoint in list(self._known.values()) if endpoint.takes_calls]

    def selected(
        self, balancer: Balancer, changes: Sequence[Change], before: Collection[str]
    ) -> list[Change]:
        """What changes that were noted mean where ``balancer`` chooses: others may take their place.

        Args:
            before: The keys of those that were chosen until now.
        """
        chosen = {endpoint.key: endpoint for endpoint in balancer.select(self.eligible())}
        removed: list[Change] = [Remove(key) for key in before if key not in chosen]
        changed = {change.key for change in changes}.union(chosen.keys() - set(before))
        return removed + [Put(endpoint) for key, endpoint in chosen.items() if key in changed]
