"""What the fault tests share with the integration tests; each breaks an etcd of its own."""

from __future__ import annotations

from tests.integration.conftest import _no_thread_left, service

__all__ = ["_no_thread_left", "service"]
