"""What of C-core's details says why there is no connection."""

from __future__ import annotations

import pytest

from etcd_grpc.channel.last_errors import last_error

REFUSED = "ipv4:127.0.0.1:1: Failed to connect to remote host: connect: Connection refused (111)"


@pytest.mark.parametrize(
    ("details", "told"),
    [
        (f"failed to connect to all addresses; last error: UNKNOWN: {REFUSED}", REFUSED),
        (f"failed to connect to all addresses; last error: UNAVAILABLE: {REFUSED}", REFUSED),
        (f"connections to all backends failing; last error: UNKNOWN: {REFUSED}", REFUSED),
        (f"failed to connect to all addresses; last error: {REFUSED}", REFUSED),
        ("Socket closed", ""),
        ("", ""),
    ],
)
def test_last_error_is_what_stands_behind_these_words(details: str, told: str) -> None:
    assert last_error(details) == told
