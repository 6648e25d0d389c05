"""Reads what servers report of their load (ORCA, gRFC A51) from the trailing metadata of their answers.

Only the methods of a channel whose policy weighs by reports are wrapped, so nobody else pays for it.
C-core keeps the binary form of a report to itself; the text form says the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from etcd_grpc.channel.subchannel import Subchannel
from etcd_grpc.load_report import TEXT_HEADER, OrcaLoadReport, decode_text

__all__ = ["ReportReader"]


class ReportReader:
    """What one endpoint says.  Any thread.

    Args:
        subchannel: The endpoint's.
    """

    def __init__(self, subchannel: Subchannel[Any]) -> None:
        self._subchannel = subchannel
        # Servers make a new report a few times a second: the same text is not read again.
        self._last: tuple[str, OrcaLoadReport | None] = ("", None)

    def read(self, trailing_metadata: Iterable[Any] | None) -> None:
        """An answer has ended with this."""
        for key, value in trailing_metadata or ():
            if key == TEXT_HEADER and isinstance(value, str):
                text, report = self._last
                if text != value:
                    report = decode_text(value)
                    self._last = (value, report)
                if report is not None:
                    self._subchannel.stats.tell(
                        report.utilization, report.rps_fractional, report.eps, time.monotonic()
                    )
                return
