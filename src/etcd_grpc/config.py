"""How to reach etcd: explicit arguments first, then the environment that ``etcdctl`` reads.

``ETCDCTL_ENDPOINTS`` (comma separated), ``ETCDCTL_CACERT``, ``ETCDCTL_CERT``, ``ETCDCTL_KEY``,
``ETCDCTL_USER`` (``name`` or ``name:password``) and ``ETCDCTL_PASSWORD``.  Our own, which etcdctl does
not know: ``ETCD_GRPC_PASSWORD_FILE``, ``ETCD_GRPC_ALLOWED_NETWORKS`` and ``ETCD_GRPC_CACHE_DIR``; and
``ETCD_GRPC_ZONE``, which says where this process is.

The rule: fail closed.  ``https://`` or any certificate means TLS for every member; a mixture of
``http://`` and ``https://``, or certificates beside ``http://``, is refused rather than guessed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from etcd_grpc.address import AddressPolicy, is_loopback
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import shown, split_address
from etcd_grpc.tls.material import CertificateFiles, Material

__all__ = ["EtcdArgument", "EtcdConfig", "own_zone"]

_DEFAULT_ENDPOINT = "127.0.0.1:2379"


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """Where etcd is and how to authenticate.  Hashable: equal configurations share one session.

    Attributes:
        endpoints: ``host:port`` of each member, optionally with ``http://`` or ``https://``.
        ca_cert: PEM file of the authority that signed etcd's certificates.
        cert, key: PEM files of the client certificate; both or neither.
        user, password: For etcd's authentication; never shown in ``repr``.
        password_file: A file that holds the password instead; read at every authentication, so a secret
            that is replaced on disk needs no restart.
        allowed_networks: CIDR networks; an endpoint registered elsewhere is refused.  Empty: any but
            link-local and other addresses that no instance has, and loopback only if etcd is there too.
        cache_dir: Where to keep the last view of each service, and its service config, for a start
            without etcd; None: nowhere.

    Raises:
        ConfigurationError: An endpoint is malformed, or the parts contradict each other.
    """

    endpoints: tuple[str, ...] = (_DEFAULT_ENDPOINT,)
    ca_cert: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    password_file: Path | None = None
    allowed_networks: tuple[str, ...] = ()
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        listed: str | Iterable[str] = self.endpoints  # callers may pass a string, or a list
        endpoints = split_endpoints(listed) if isinstance(listed, str) else tuple(listed)
        object.__setattr__(self, "endpoints", endpoints)
        object.__setattr__(self, "allowed_networks", tuple(self.allowed_networks))
        if not self.endpoints:
            raise ConfigurationError("no etcd endpoint: pass endpoints or set ETCDCTL_ENDPOINTS")
        schemes = {endpoint.partition("://")[0] for endpoint in self.endpoints if "://" in endpoint}
        if schemes - {"http", "https"} or len(schemes) > 1:
            raise ConfigurationError(
                f"etcd endpoints {', '.join(map(shown, self.endpoints))} mix schemes or use an "
                "unknown one; use http:// or https:// for all of them"
            )
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError(
                "a client certificate for etcd needs both cert and key (ETCDCTL_CERT, ETCDCTL_KEY)"
            )
        if schemes == {"http"} and (self.ca_cert or self.cert):
            raise ConfigurationError(
                "certificates are given but the etcd endpoints say http://; use https://"
            )
        if (self.password or self.password_file) and not self.user:
            raise ConfigurationError("an etcd password without a user: set user or ETCDCTL_USER")
        if self.password and self.password_file:
            raise ConfigurationError("both password and password_file are given: pass one of them")
        for address in self.addresses:
            split_address(address)
        AddressPolicy(self.allowed_networks)

    @property
    def tls(self) -> bool:
        """Whether connections to etcd are encrypted."""
        return bool(self.ca_cert or self.cert or any(e.startswith("https://") for e in self.endpoints))

    def secret(self) -> str:
        """The password as it is now.

        Raises:
            ConfigurationError: ``password_file`` cannot be read.
        """
        if self.password_file is None:
            return self.password
        try:
            return self.password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(f"cannot read the file with etcd's password: {error}") from error

    def address_policy(self) -> AddressPolicy:
        """Which of the addresses that stand in this etcd are believed."""
        local = all(is_loopback(address) for address in self.addresses)
        return AddressPolicy(self.allowed_networks, loopback=local)

    @property
    def addresses(self) -> tuple[str, ...]:
        """``host:port`` of each member."""
        return tuple(e.partition("://")[2] if "://" in e else e for e in self.endpoints)

    def certificate_files(self) -> CertificateFiles:
        """The files with which TLS to etcd is made."""
        return CertificateFiles(self.ca_cert, self.cert, self.key, "client certificate")

    def certificates(self) -> Material:
        """What stands in these files now.

        Raises:
            ConfigurationError: A file cannot be read or used, they do not belong together, or the
                client's certificate has expired.
        """
        return self.certificate_files().load()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> EtcdConfig:
        """Read what ``etcdctl`` would read; 127.0.0.1:2379 when nothing is set."""
        env = os.environ if environ is None else environ

        def path(name: str) -> Path | None:
            return Path(env[name]) if env.get(name) else None

        user, password = env.get("ETCDCTL_USER", ""), env.get("ETCDCTL_PASSWORD", "")
        if not password:  # with a password of its own, a user's name may hold a colon
            user, _, password = user.partition(":")
        return cls(
            endpoints=split_endpoints(env.get("ETCDCTL_ENDPOINTS") or _DEFAULT_ENDPOINT),
            ca_cert=path("ETCDCTL_CACERT"),
            cert=path("ETCDCTL_CERT"),
            key=path("ETCDCTL_KEY"),
            user=user,
            password=password,
            password_file=path("ETCD_GRPC_PASSWORD_FILE") if not password else None,
            allowed_networks=split_endpoints(env.get("ETCD_GRPC_ALLOWED_NETWORKS", "")),
            cache_dir=path("ETCD_GRPC_CACHE_DIR"),
        )

    @classmethod
    def of(cls, etcd: EtcdArgument) -> EtcdConfig:
        """Make a configuration of whatever a caller may pass as ``etcd=``.

        ``None`` is the environment; a string is a comma-separated list of endpoints; certificates
        and user still come from the environment then.
        """
        if isinstance(etcd, EtcdConfig):
            return etcd
        if etcd is None:
            return cls.from_env()
        listed = etcd if isinstance(etcd, str) else ",".join(etcd)
        return cls.from_env({**os.environ, "ETCDCTL_ENDPOINTS": listed or ","})


# What the functions of this package take as ``etcd=``.
EtcdArgument = EtcdConfig | str | Iterable[str] | None


def split_endpoints(listed: str) -> tuple[str, ...]:
    """Split a comma-separated list, as in ``ETCDCTL_ENDPOINTS``."""
    return tuple(part.strip().rstrip("/") for part in listed.split(",") if part.strip())


def own_zone() -> str:
    """Where this process is, by ``ETCD_GRPC_ZONE``; "" when unknown.

    It is the zone of the instances that it registers, and that of its calls.
    """
    return os.environ.get("ETCD_GRPC_ZONE", "")
