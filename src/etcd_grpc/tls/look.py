"""Why TLS with a server fails: a look at it, for an error that names the reason.

gRPC tells that a handshake failed, and a word of OpenSSL's; of a server that hangs up, nothing.  So the
handshake is made once more here, and what the certificate says is told.  Nothing is ever sent after it,
and what is found decides nothing: it is gRPC that accepts a certificate or not.
"""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from etcd_grpc.certificates import Facts, facts_of
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import split_address
from etcd_grpc.tls.material import CertificateFiles, Material

__all__ = ["Ours", "why_refused"]

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_EOF_WHILE_READING"})
_EXPIRED = frozenset({9, 10})  # OpenSSL's: not yet valid, expired


@dataclass(frozen=True, slots=True)
class Ours:
    """Our side of the connection.

    Attributes:
        files: With what it is made; None if only gRPC knows.
        names: What the server's certificate may be for; "" is the address.
    """

    files: CertificateFiles | None
    names: tuple[str, ...]


def why_refused(address: str, ours: Ours, timeout_s: float) -> str:
    """What is wrong between us and the server at ``address``; "" if that cannot be told.  Blocks."""
    try:
        facts, problem = _their_certificate(address, timeout_s)
        if facts is not None and not problem:
            problem = _problem_of(facts, address, ours.names)
        if problem or ours.files is None:
            return problem
        signer = "somebody" if facts is None else facts.issuer
        return _more(address, ours.files, signer, timeout_s)
    except (OSError, ValueError, ConfigurationError):
        return ""  # it cannot be reached at all, which is told by others


def _their_certificate(address: str, timeout_s: float) -> tuple[Facts | None, str]:
    """What it says, whoever signed it; or why there is none."""
    context = _context()
    context.verify_mode = ssl.CERT_NONE
    try:
        with _connected(address, context, timeout_s) as connection:
            der = connection.getpeercert(binary_form=True) or b""
    except ssl.SSLEOFError:
        return None, f"{address} hung up in the TLS handshake; does it speak TLS?"
    except ssl.SSLError as error:
        if error.reason in _NO_TLS:
            return None, f"{address} does not speak TLS"
        return None, f"the TLS handshake with {address} failed: {error.reason}"
    return facts_of(ssl.DER_cert_to_PEM_cert(der).encode()), ""


def _problem_of(facts: Facts, address: str, names: Sequence[str]) -> str:
    """What the certificate itself shows."""
    problem = facts.problem(dt.datetime.now(dt.UTC))
    if problem:
        return f"the certificate of {address} {problem}; {facts}"
    host = split_address(address)[0].strip("[]")
    wanted = [name or host for name in names]
    if wanted and not any(map(facts.is_for, wanted)):
        return f"the certificate of {address} is not for {' or '.join(wanted)}; {facts}"
    return ""


def _more(address: str, files: CertificateFiles, signer: str, timeout_s: float) -> str:
    """The certificate looks good, as far as we can see: is its authority known, and is ours taken?"""
    material = files.read()
    context = _context()
    if material.ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=material.ca.decode("ascii"))
    files.load_into(context, material)
    try:
        with _connected(address, context, timeout_s) as connection:
            # With TLS 1.3 a server looks at our certificate after the handshake; then it speaks, or
            # hangs up.
            taken = bool(connection.recv(1))
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _EXPIRED:
            return f"the certificate of {address}, or one above it, has expired or is not valid yet"
        return (
            f"the certificate of {address} was signed by {signer}, an authority that "
            f"{files.ca or 'this system'} does not have ({error.verify_message})"
        )
    except TimeoutError:
        return ""
    except (ssl.SSLError, ConnectionError):
        taken = False
    return "" if taken else _not_taken(address, material, files)


def _not_taken(address: str, material: Material, files: CertificateFiles) -> str:
    if material.cert is None:
        return f"{address} hangs up after the TLS handshake: it wants a client's certificate"
    own = facts_of(material.cert)
    expired = "" if own is None else own.problem(dt.datetime.now(dt.UTC))
    if expired:
        return f"{address} refuses our certificate {files.cert}, which {expired}"
    return (
        f"{address} refuses our certificate {files.cert}: does it know the authority that signed it"
        f"{'' if own is None else f', {own.issuer}'}?"
    )


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])  # without it gRPC's servers hang up
    return context


def _connected(address: str, context: ssl.SSLContext, timeout_s: float) -> ssl.SSLSocket:
    host, port = split_address(address)
    plain = socket.create_connection((host.strip("[]"), port), timeout_s)
    try:
        return context.wrap_socket(plain, server_hostname=host.strip("[]"))
    except BaseException:
        plain.close()
        raise
