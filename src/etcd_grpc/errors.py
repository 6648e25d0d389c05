"""The errors this package raises, split by who has to act.

What comes out of a *channel* is always a ``grpc.RpcError``, or it would not be a drop-in; everything
else that goes wrong is one of these.  No message ever contains a password or a token.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "ConfigurationError",
    "DuplicateInstanceError",
    "EtcdError",
    "EtcdGrpcError",
    "EtcdUnavailableError",
    "MissingExtraError",
    "StoredDataError",
    "WorkerError",
]


class EtcdGrpcError(Exception):
    """Base of every error of this package."""


class ConfigurationError(EtcdGrpcError, ValueError):
    """Something you passed or set is wrong; the message says what and what to set instead."""


class DuplicateInstanceError(ConfigurationError):
    """Another live process is registered under the id that you passed; it was left as it is."""


class MissingExtraError(EtcdGrpcError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class StoredDataError(EtcdGrpcError):
    """A value in etcd cannot be understood.  Such an entry is skipped, never fatal."""


class WorkerError(EtcdGrpcError):
    """Worker processes of ``serve`` ended again and again until none was left to serve."""


class EtcdError(EtcdGrpcError):
    """etcd answered with an error that another attempt will not cure."""


class EtcdUnavailableError(EtcdError):
    """No etcd member answered in time; the message names the members and the last error."""


class AuthenticationError(EtcdError):
    """etcd refused the credentials, or the user lacks a permission."""
