"""Text from elsewhere, made fit for a terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str, limit: int = 2000) -> str:
    """``text`` without anything that a terminal would obey, and not longer than ``limit``.

    Control characters, escape sequences, direction overrides and lone surrogates are shown as in a
    Python string, such as ``\\x1b``.
    """
    shown = text if len(text) <= limit else f"{text[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
