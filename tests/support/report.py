"""Recovery times that the fault tests measured, for the table of docs/faults.md.

One JSON object a line in the file that ETCD_GRPC_FAULT_REPORT names; scripts/fault_table.py renders it.
A line is one short write in append mode, so the workers of a parallel run may share the file.
"""

from __future__ import annotations

import json
import os

__all__ = ["record"]


def record(row: int, fault: str, seconds: float, bound_s: float, note: str = "") -> None:
    """Note that recovering from a fault took ``seconds``; nothing is done if no file is named.

    Args:
        row: The row of the table of faults.
        fault: What was done, in a few words.
        seconds: How long it took until all was well.
        bound_s: How long it may take.
        note: What else is worth a word, such as how much was lost: nothing.
    """
    path = os.environ.get("ETCD_GRPC_FAULT_REPORT", "")
    if not path:
        return
    line = {"row": row, "fault": fault, "seconds": round(seconds, 4), "bound_s": bound_s, "note": note}
    with open(path, "a", encoding="utf-8") as report:  # noqa: PTH123 - one write, in append mode
        report.write(json.dumps(line) + "\n")
