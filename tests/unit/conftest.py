"""What every unit test starts from: an environment that says nothing about etcd."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("ETCDCTL_", "ETCD_GRPC_")):
            monkeypatch.delenv(name)
