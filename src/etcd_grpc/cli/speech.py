"""What a program of ours has to say while it runs: one line on standard error for each event."""

from __future__ import annotations

import logging
import sys

from etcd_grpc.cli.text import printable

__all__ = ["speak"]


def speak(level: int = logging.INFO) -> None:
    """Let the log of this package come out on standard error, from ``level`` on."""
    logger = logging.getLogger("etcd_grpc")
    logger.addHandler(_Speech())
    logger.setLevel(level)
    logger.propagate = False


class _Speech(logging.Handler):
    """Told apart from the output of the program that we start or serve."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
        try:
            print(f"etcd-grpc: {printable(text)}", file=sys.stderr, flush=True)
        except OSError:  # nobody reads it any more, which is no reason to end
            return
