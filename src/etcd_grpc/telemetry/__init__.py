"""What happens, told to whoever wants to know: one vocabulary of events, and the listeners."""

from __future__ import annotations

from etcd_grpc.telemetry import events
from etcd_grpc.telemetry.events import Event
from etcd_grpc.telemetry.listeners import Listener, Listening, emit, listen

__all__ = ["Event", "Listener", "Listening", "emit", "events", "listen"]
