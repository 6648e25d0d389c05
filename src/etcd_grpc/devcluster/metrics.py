"""A member's metrics: Prometheus's text format, as numbers by name."""

from __future__ import annotations

__all__ = ["parsed"]


def parsed(text: str) -> dict[str, float]:
    """Every sample by its name with labels, written as etcd writes them.

    >>> parsed('# HELP up Whether.\\nup{job="etcd"} 1\\n')
    {'up{job="etcd"}': 1.0}

    Raises:
        ValueError: a line is no sample.
    """
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")  # etcd writes no timestamps
            samples[name] = float(value)
    return samples
