"""What an error of gRPC's means when it comes from etcd: the one boundary between the two.  Pure.

The rule: the error says what was asked of whom, what is wrong, and what to do; it holds no secret.
"""

from __future__ import annotations

import grpc
from google.protobuf.message import Message

from etcd_grpc.errors import AuthenticationError, EtcdError, EtcdUnavailableError
from etcd_grpc.etcd import rpc_pb2

__all__ = ["LeaseNotFoundError", "StaleTokenError", "is_certificate_refused", "translate"]

_SILENT = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
_UNAUTHORIZED = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
# What etcd says of a token from before its restart, its end, or a change of users and roles.
_STALE = ("invalid auth token", "revision of auth store is old")


class StaleTokenError(AuthenticationError):
    """etcd does not know the token that we sent."""


class LeaseNotFoundError(EtcdError):
    """The lease under which something was to be put is gone."""


def translate(
    error: grpc.RpcError, path: str, member: str, *, user: str = "", request: Message | None = None
) -> EtcdError:
    """Make our error of gRPC's.

    Args:
        error: What a call to etcd raised.
        path: The method's path.
        member: ``host:port`` of the member that was asked.
        user: Who asked, "" without authentication.
        request: What was asked, to name the permission that is missing.
    """
    code, details = error.code(), error.details() or ""
    what = f"etcd member {member}, {path.rpartition('/')[2]}: {details or code.name}"
    if any(sign in details for sign in _STALE):
        return StaleTokenError(what)
    # etcd's own deadline may end before ours, and then comes as UNKNOWN.
    if code in _SILENT or "context deadline exceeded" in details:
        return EtcdUnavailableError(what + _connection_hint(details))
    return _refused(code, details, what, permission_hint(user, request))


def _refused(code: grpc.StatusCode, details: str, what: str, permission: str) -> EtcdError:
    """etcd has answered: no."""
    if "permission denied" in details:
        return AuthenticationError(f"{what}: {permission}")
    if code in _UNAUTHORIZED or "authentication" in details or "user name is empty" in details:
        return AuthenticationError(
            f"{what}. Check ETCDCTL_USER and ETCDCTL_PASSWORD, and the role's permissions"
        )
    if "requested lease not found" in details:
        return LeaseNotFoundError(what)
    if "database space exceeded" in details:
        return EtcdError(
            f"{what}. etcd has raised its NOSPACE alarm and takes no writes: compact its history, "
            "defragment it, then run 'etcdctl alarm disarm' (discovery goes on meanwhile)"
        )
    return EtcdError(what)


def permission_hint(user: str, request: Message | None) -> str:
    """Which permission is missing, for whom, on which keys."""
    kind, keys = _keys_of(request)
    who = f"user {user!r}" if user else "an anonymous client"
    where = f" on {' and '.join(keys)}" if keys else ""
    return f"{who} needs a role with {kind} permission{where}"


def _keys_of(request: Message | None) -> tuple[str, tuple[str, ...]]:
    match request:
        case rpc_pb2.RangeRequest() | rpc_pb2.WatchCreateRequest():
            return "read", (_span(request.key, request.range_end),)
        case rpc_pb2.TxnRequest():
            keys = dict.fromkeys(_span(compare.key, b"") for compare in request.compare)
            return "readwrite", tuple(keys)
        case _:
            return "the", ()


def _span(key: bytes, range_end: bytes) -> str:
    prefix = "prefix " if range_end else "key "
    return f"{prefix}{key.decode(errors='backslashreplace')[:200]!r}"


def is_certificate_refused(error: EtcdError) -> bool:
    """Whether it was etcd's certificate that made the connection fail."""
    return "etcd's certificate" in str(error)


def _connection_hint(details: str) -> str:
    """What to look at when a connection fails on TLS; C-core's text names the cause only."""
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return (
            ". etcd's certificate was refused: is it valid today, and was it signed by the authority "
            "in ETCDCTL_CACERT (ca_cert)?"
        )
    if "Hostname Verification" in details or "Peer name" in details:
        return (
            ". etcd's certificate is for another name: use an endpoint that it names, "
            "or have it issued for this one"
        )
    if "_ALERT_" in details or "TSI_DATA_CORRUPTED" in details:  # the second: with TLS 1.3
        return (
            ". etcd refused our certificate: are ETCDCTL_CERT and ETCDCTL_KEY (cert, key) set, are "
            "they valid today, and does etcd know the authority that signed them?"
        )
    if "WRONG_VERSION_NUMBER" in details or "Handshake read failed" in details:
        return ". Does this member speak TLS? If not, use http://, or the port on which it does"
    if details.endswith("Socket closed"):
        return ". Does this member want TLS? If so, use https://"
    return ""
