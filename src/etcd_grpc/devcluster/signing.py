"""Keys and certificates of a development authority, as values: no files here.  Needs ``cryptography``.

Who a certificate is for stands in its alternative names alone; nobody may go by its common name.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
from collections.abc import Sequence

from etcd_grpc.errors import ConfigurationError, MissingExtraError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID
except ImportError as error:
    raise MissingExtraError(
        "a development authority needs cryptography: pip install 'etcd-grpc[tls]'"
    ) from error

__all__ = ["Pair", "Signer", "load_signer", "new_authority"]

_CA_DAYS = 3650
_EARLIER = dt.timedelta(hours=1)  # clocks differ

Pair = tuple[bytes, bytes]  # a certificate and its key, as PEM


class Signer:
    """An authority that can sign."""

    def __init__(self, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._cert = cert
        self._key = key

    @property
    def not_after(self) -> dt.datetime:
        """Its end, in UTC."""
        return self._cert.not_valid_after_utc

    def sign(
        self, names: Sequence[str], spiffe: str, now: dt.datetime, days: float
    ) -> tuple[Pair, dt.datetime]:
        """A new key with a certificate for ``names``, and when it ends.

        Raises:
            ConfigurationError: A name is none, or there is none at all.
        """
        alternatives = x509.SubjectAlternativeName(_alternative_names(names, spiffe))
        end = min(now + dt.timedelta(days=days), self.not_after)
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        cert = (
            _certificate(self._cert.subject, _named("development"), key, ca=False)
            .not_valid_before(min(now, end) - _EARLIER)
            .not_valid_after(end)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(alternatives, critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _pem(cert, key), end


def new_authority(now: dt.datetime) -> Pair:
    """An authority's certificate, valid for ten years, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named(f"etcd-grpc development authority {x509.random_serial_number() % 10**6:06}")
    cert = (
        _certificate(name, name, key, ca=True)
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + dt.timedelta(days=_CA_DAYS))
        .sign(key, hashes.SHA256())
    )
    return _pem(cert, key)


def load_signer(pair: Pair) -> Signer:
    """The authority that ``new_authority`` made.

    Raises:
        ValueError: It is none, or the key does not belong to it.
    """
    cert = x509.load_pem_x509_certificate(pair[0])
    key = serialization.load_pem_private_key(pair[1], None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is of another kind")  # noqa: TRY004 - not the caller's mistake
    if cert.public_key() != key.public_key():
        raise ValueError("its key belongs to another certificate")
    return Signer(cert, key)


def _certificate(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.CertificateBuilder:
    """What an authority's and other certificates have in common."""
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    public = key.public_key()
    return (
        x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _alternative_names(names: Sequence[str], spiffe: str) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        with contextlib.suppress(ValueError):
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
            continue
        try:
            found.append(x509.DNSName(name))
        except ValueError:
            raise ConfigurationError(f"{name!r} is no host name that a certificate can have") from None
    if spiffe and not (spiffe.startswith("spiffe://") and spiffe.isascii()):
        raise ConfigurationError(f"{spiffe!r} is no SPIFFE ID: it must begin with spiffe://")
    if spiffe:
        found.append(x509.UniformResourceIdentifier(spiffe))
    if not found:
        raise ConfigurationError("a certificate needs a name: a host name, an address or a SPIFFE ID")
    return found


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _pem(cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return cert.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
