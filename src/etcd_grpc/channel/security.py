"""With what the connections of one channel are made: credentials, names, health checking.

gRPC's Python has no channel credentials that change.  So credentials are made anew when the files have
been replaced, for the connections that are made from then on; ``rivals`` replaces those that are there.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc
import msgspec

from etcd_grpc.channel.spec import ChannelSpec, Options
from etcd_grpc.channel.ways import Way, Ways
from etcd_grpc.tls.channel import ChannelTls
from etcd_grpc.tls.look import Ours, why_refused
from etcd_grpc.tls.material import Material
from etcd_grpc.tls.names import BY_ADDRESS, NAME_OPTIONS, names_to_check
from etcd_grpc.tls.watcher import Watched, watch

__all__ = ["Security"]


_LOOK_S = 1.0


class Security:
    """The security of one channel; files are followed between ``open`` and ``close``."""

    def __init__(self, spec: ChannelSpec) -> None:
        self._spec = spec
        self._tls = spec.credentials if isinstance(spec.credentials, ChannelTls) else None
        self._watched: Watched | None = None
        self._on_change: Callable[[], None] = lambda: None
        # What gRPC's health checking (gRFC A17) asks the endpoints for; None: they are not asked.
        self.health_service = spec.effective().service_config.health_service
        self.credentials = None if isinstance(spec.credentials, ChannelTls) else spec.credentials

        self._names = self._names_to_check()

    def ways(self) -> Ways:
        """How the endpoints can be connected, as nothing is known yet."""
        return Ways(self._names)

    def _names_to_check(self) -> tuple[str, ...]:
        if self._spec.credentials is None:
            return (BY_ADDRESS,)
        server_name = None if self._tls is None else self._tls.server_name
        options = {name for name, _ in self._spec.options}
        return names_to_check(self._spec.target.service, server_name, options)

    def options(self, way: Way) -> Options:
        """The options of a channel that is connected in this way."""
        options = (*self._spec.options, *_health_checking(self.health_service))
        if way.name == BY_ADDRESS:
            return options
        return (("grpc.default_authority", way.name), *options)

    @property
    def tls(self) -> bool:
        """Whether the connections are TLS's, for all that can be told of gRPC's own credentials."""
        return self._tls is not None or _is_tls(self.credentials)

    def look(self, address: str) -> str:
        """Why there is no connection to ``address``; "" if that cannot be told.  Blocks."""
        files = None if self._tls is None else self._tls.files()
        chosen = tuple(str(value) for name, value in self._spec.options if name in NAME_OPTIONS)
        return why_refused(address, Ours(files, chosen or self._names), _LOOK_S)

    def open(self, on_change: Callable[[], None]) -> None:
        """Load the files and follow them.

        Args:
            on_change: Called, on a thread that must not be held up, when ``credentials`` are new.

        Raises:
            ConfigurationError: The files cannot be used.
        """
        if self._tls is None:
            return
        files = self._tls.files()
        if not files.paths:
            self.credentials = grpc.ssl_channel_credentials()
            return
        self._on_change = on_change
        self._watched = watch(files, self._replaced)
        self.credentials = _credentials(self._watched.material)

    def close(self) -> None:
        """Follow the files no longer."""
        if self._watched is not None:
            self._watched.abandon()
            self._watched = None

    def _replaced(self, material: Material) -> None:
        self.credentials = _credentials(material)
        self._on_change()


def _is_tls(credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether they are gRPC's for TLS, perhaps with credentials for each call."""
    inner = getattr(credentials, "_credentials", None)
    inner = getattr(inner, "_channel_credentials", inner)
    return type(inner).__name__ == "SSLChannelCredentials"


def _credentials(material: Material) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=material.ca,
        private_key=material.key,
        certificate_chain=material.cert,
    )


def _health_checking(service: str | None) -> Options:
    """C-core checks health only under a policy such as ``round_robin``, here over one address.

    A channel whose endpoint says NOT_SERVING is then in TRANSIENT_FAILURE.
    """
    if service is None:
        return ()
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": service},
    }
    return (("grpc.service_config", msgspec.json.encode(config).decode()),)
