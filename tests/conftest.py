"""What every test of every kind starts from."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _patient_end_of_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that is closed was told everything, however slow the machine is."""
    monkeypatch.setattr("etcd_grpc.telemetry.listeners._JOIN_S", 30.0)
