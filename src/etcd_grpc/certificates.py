"""What is wrong with a certificate, in words: gRPC's own errors name neither the file nor the date.

The dates are read with ``cryptography`` where that is installed (the extra ``tls``); everything else is
the standard library's.  The rule: a certificate of somebody else's is only described; whether it is
accepted is decided by gRPC.
"""

from __future__ import annotations

import datetime as dt
import ssl
from typing import NamedTuple

__all__ = ["Facts", "describe_peer", "facts_of"]


class Facts(NamedTuple):
    """What a certificate says.

    Attributes:
        not_before, not_after: When it is valid, in UTC.
        names: The host names, addresses and URIs that it is for.
        issuer: Who signed it.
    """

    not_before: dt.datetime
    not_after: dt.datetime
    names: tuple[str, ...]
    issuer: str = ""

    def __str__(self) -> str:
        names = ", ".join(self.names[:5]) or "no name"
        return (
            f"it is for {names}; notBefore {self.not_before:%Y-%m-%d %H:%M} UTC, notAfter {self._end}"
        )

    @property
    def _end(self) -> str:
        return f"{self.not_after:%Y-%m-%d %H:%M} UTC"

    def problem(self, now: dt.datetime) -> str:
        """Why it is not valid at ``now``; "" if it is."""
        if now > self.not_after:
            return f"expired: notAfter is {_utc(self.not_after)}"
        if now < self.not_before:
            return f"is not valid yet: notBefore is {_utc(self.not_before)}"
        return ""

    def is_for(self, name: str) -> bool:
        """Whether it is for this host name or address, as gRPC sees it."""
        wanted = name.rstrip(".").lower()
        for own in (own.rstrip(".").lower() for own in self.names):
            if own == wanted:
                return True
            # A wildcard stands for one label, and never for the last two.
            if own.startswith("*.") and own.count(".") > 1 and wanted.partition(".")[2] == own[2:]:
                return True
        return False


def _utc(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def facts_of(pem: bytes) -> Facts | None:
    """The facts of the first certificate in ``pem``; None without ``cryptography``.

    Raises:
        ValueError: There is none in it.
    """
    try:
        from cryptography import x509  # noqa: PLC0415 - only needed when something is wrong
    except ImportError:
        return None
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names: tuple[str, ...] = ()
    else:
        names = tuple(str(name.value) for name in found)
    return Facts(
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        names,
        certificate.issuer.rfc4514_string(),
    )


def describe_peer(host: str, port: int, timeout_s: float) -> str:
    """What the certificate of the server at ``host`` says; "" if that cannot be told.  May block."""
    try:
        facts = facts_of(ssl.get_server_certificate((host, port), timeout=timeout_s).encode())
    except (OSError, ValueError):
        return ""  # the error that is being described says enough
    return "" if facts is None else str(facts)
