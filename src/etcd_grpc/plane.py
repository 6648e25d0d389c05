"""The control plane of a process: one session for each etcd configuration, shared by all who use it.

Channels and registrations ``acquire`` the plane of their configuration and ``release`` it when they
close; the last one to leave ends its threads.  A forked child starts with no plane: the parent's
threads do not exist there, and its lease stays the parent's.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator

from etcd_grpc.codec import Codec, NamingCodec
from etcd_grpc.config import EtcdConfig
from etcd_grpc.etcd.session import Session
from etcd_grpc.registry import Registrar
from etcd_grpc.resolver import Resolver, Subscription
from etcd_grpc.shared_config import ConfigSubscription, SharedConfig

__all__ = ["ControlPlane", "acquire", "using"]


class ControlPlane:
    """A session with the resolvers and registrars that live on its loop."""

    def __init__(self, config: EtcdConfig) -> None:
        self.session = Session(config)
        self._codec: Codec = NamingCodec()
        self._resolvers: dict[str, Resolver] = {}
        self._configs: dict[str, SharedConfig] = {}
        self._registrars: dict[int, Registrar] = {}
        self._users = 0

    # On the session's loop.

    def subscribe(self, service: str, subscription: Subscription) -> Resolver:
        """Follow ``service``, together with everybody else who does."""
        resolver = self._resolvers.get(service)
        if resolver is None:
            resolver = self._resolvers[service] = Resolver(self.session, service, self._codec)
        resolver.subscribe(subscription)
        return resolver

    def unsubscribe(self, service: str, subscription: Subscription) -> None:
        """Undo ``subscribe``; the last subscriber ends the watch."""
        resolver = self._resolvers.get(service)
        if resolver is not None and resolver.unsubscribe(subscription):
            del self._resolvers[service]

    def subscribe_config(self, service: str, subscription: ConfigSubscription) -> None:
        """Follow the service config of ``service`` in etcd, together with everybody else who does."""
        config = self._configs.get(service)
        if config is None:
            config = self._configs[service] = SharedConfig(self.session, service)
        config.subscribe(subscription)

    def unsubscribe_config(self, service: str, subscription: ConfigSubscription) -> None:
        """Undo ``subscribe_config``; the last subscriber ends the watch."""
        config = self._configs.get(service)
        if config is not None and config.unsubscribe(subscription):
            del self._configs[service]

    def registrar(self, ttl_s: int) -> Registrar:
        """The registrar whose lease has this TTL."""
        registrar = self._registrars.get(ttl_s)
        if registrar is None:
            registrar = self._registrars[ttl_s] = Registrar(self.session, self._codec, ttl_s)
        return registrar

    # From any thread.

    def release(self) -> None:
        """One user less; the last one closes the session."""
        with _lock:
            self._users -= 1
            if self._users or _planes.get(self.session.config) is not self:
                return
            del _planes[self.session.config]
        self.session.close()


# Guards _planes and every plane's count of users.  Reentrant: a garbage collection may run a channel's
# finalizer in the very thread that holds it.
_lock = threading.RLock()
_planes: dict[EtcdConfig, ControlPlane] = {}


def acquire(config: EtcdConfig) -> ControlPlane:
    """The plane of ``config``, started if need be; pair with ``release``.

    Raises:
        ConfigurationError: A certificate file cannot be read.
    """
    with _lock:
        plane = _planes.get(config)
        if plane is None:
            plane = _planes[config] = ControlPlane(config)
        plane._users += 1  # guarded by our lock
        return plane


@contextlib.contextmanager
def using(config: EtcdConfig) -> Iterator[ControlPlane]:
    """``acquire`` and ``release``, for what is done at once."""
    plane = acquire(config)
    try:
        yield plane
    finally:
        plane.release()


def _forget_parent() -> None:
    """In a forked child."""
    global _lock  # noqa: PLW0603 - the parent may have held it at the moment of the fork
    _lock = threading.RLock()
    _planes.clear()


def _close_all() -> None:
    """At interpreter exit: end the threads while the modules that they use are still there."""
    with _lock:
        planes = list(_planes.values())
        _planes.clear()
    for plane in planes:
        plane.session.close()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_parent)
