"""``etcd-grpc serve``: your servicers as a server that registers, drains, and has workers.

Only parses; ``server`` does it.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from etcd_grpc.cli import serve_options as option
from etcd_grpc.cli.pairs import metadata_of
from etcd_grpc.cli.speech import speak
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.server.options import serve_options
from etcd_grpc.server.tls import ServerTls
from etcd_grpc.server.workers.importing import Importable
from etcd_grpc.server.workers.job import Job
from etcd_grpc.server.workers.perform import perform

__all__ = ["serve"]


def serve(
    application: option.Application,
    service: option.Service,
    port: option.Port = 50051,
    host: option.Host = "127.0.0.1",
    asyncio: option.Asyncio = False,
    threads: option.Threads = None,
    reflection: option.Reflection = None,
    settle: option.Settle = 0.5,
    grace: option.Grace = 20.0,
    quiet: option.Quiet = False,
    workers: option.Workers = 1,
    shared_port: option.SharedPort = False,
    advertise: option.Advertise = None,
    id: option.Id = None,  # noqa: A002 - the option's own name
    weight: option.Weight = 1.0,
    zone: option.Zone = "",
    version: option.Version = "",
    metadata: option.Metadata = None,
    tls_cert: option.TlsCert = None,
    tls_key: option.TlsKey = None,
    tls_client_ca: option.TlsClientCa = None,
    ttl: option.Ttl = 10,
    timeout: option.Timeout = 5.0,
    require: option.Require = True,
    etcd: option.Etcd = None,
) -> None:
    """Serve your servicers: bind, answer health checks, register, and leave without losing a call.

    etcd-grpc serve greeter.server:add_servicers --service helloworld.Greeter --workers 4

    SIGTERM and SIGINT drain; a second one ends at once.
    With workers, SIGHUP replaces them one after another, SIGUSR1 logs how they stand.
    """
    options = serve_options(
        service=service,
        port=port,
        host=host,
        max_workers=threads,
        reflection=reflection,
        settle_s=settle,
        grace_s=grace,
        workers=workers,
        share_port=shared_port,
        advertise=advertise,
        id=id,
        weight=weight,
        zone=zone,
        version=version,
        metadata=metadata_of(metadata or ()),
        credentials=_tls(tls_cert, tls_key, tls_client_ca),
        ttl_s=ttl,
        timeout_s=timeout,
        required=require,
        etcd=etcd,
    )
    sys.path.insert(0, str(Path.cwd()))  # as python -m has it; a console script does not
    setup = _speak_little if quiet else speak
    setup()
    perform(Job(Importable(application), options, asyncio=asyncio, setup=setup))


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> ServerTls | None:
    if cert is not None and key is not None:
        return ServerTls(cert, key, client_ca)
    if cert or key or client_ca:
        raise ConfigurationError("TLS needs both --tls-cert and --tls-key")
    return None


def _speak_little() -> None:
    speak(logging.WARNING)
