"""``etcd-grpc register``: a program in any language as an instance of a service.

Only parses; ``sidecar`` does it.  Standard output is the program's, so what the sidecar itself has to
say goes to standard error.
"""

from __future__ import annotations

import logging

import typer

from etcd_grpc.cli import register_options as option
from etcd_grpc.cli.pairs import metadata_of
from etcd_grpc.cli.speech import speak
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.model import split_address
from etcd_grpc.registration import plan
from etcd_grpc.sidecar import GrpcCheck, ProbeRules, ProbeTls, Settings, TcpCheck, run

__all__ = ["register"]


def register(
    service: option.Service,
    command: option.Command = None,
    port: option.Port = None,
    host: option.Host = None,
    address: option.Address = None,
    instance_id: option.Id = None,
    weight: option.Weight = 1.0,
    zone: option.Zone = "",
    version: option.Version = "",
    metadata: option.Metadata = None,
    settle: option.Settle = 0.5,
    grace: option.Grace = 10.0,
    start_timeout: option.StartTimeout = 60.0,
    quiet: option.Quiet = False,
    probe: option.Probe = option.Kind.TCP,
    probe_address: option.ProbeAddress = None,
    health_service: option.HealthService = "",
    interval: option.Interval = 2.0,
    probe_timeout: option.ProbeTimeout = 1.0,
    failures: option.Failures = 3,
    successes: option.Successes = 1,
    tls: option.Tls = False,
    tls_ca: option.TlsCa = None,
    tls_cert: option.TlsCert = None,
    tls_key: option.TlsKey = None,
    tls_server_name: option.TlsServerName = "",
    etcd: option.Etcd = None,
    ttl: option.Ttl = 10,
    timeout: option.Timeout = 5.0,
    require: option.Require = True,
) -> None:
    """Register a program in any language, probe it, and drain it.

    etcd-grpc register helloworld.Greeter --port 9000 -- ./any-program its arguments

    The program is started, registered when it is well, and withdrawn while it is not. On SIGTERM,
    SIGINT or SIGQUIT it is marked as draining, clients move away, its entry is deleted, and then it
    gets the signal. Other signals are passed on.

    Exit status: the program's, 128 + n if signal n ended it; 1 if it could not be registered.
    """
    planned = plan(
        service,
        port=port if address is None else None,
        host=host,
        address=address,
        id=instance_id,
        weight=weight,
        zone=zone,
        version=version,
        metadata=metadata_of(metadata or ()),
        ttl_s=ttl,
        settle_s=settle,
        timeout_s=timeout,
        required=require,
        etcd=etcd,
    )
    where = probe_address or _where(planned.instance.address, port)
    secured = ProbeTls(tls_ca, tls_cert, tls_key, tls_server_name) if tls else None
    if secured is None and (tls_ca or tls_cert or tls_key or tls_server_name):
        raise ConfigurationError("--tls-ca and the like need --tls: the probe would be in plaintext")
    check = _check(probe, where, health_service, secured)
    rules = ProbeRules(interval, probe_timeout, failures, successes, start_timeout)
    speak(logging.WARNING if quiet else logging.INFO)
    raise typer.Exit(run(Settings(planned, command or (), check, rules, grace)))


def _check(
    kind: option.Kind, address: str, health_service: str, tls: ProbeTls | None
) -> TcpCheck | GrpcCheck:
    split_address(address)
    if kind is option.Kind.GRPC:
        return GrpcCheck(address, health_service, tls)
    if tls or health_service:
        raise ConfigurationError("--tls and --health-service are for --probe grpc")
    return TcpCheck(address)


def _where(advertised: str, port: int | None) -> str:
    """Where the program listens: at the host that clients use, and at its own port."""
    return advertised if port is None else f"{split_address(advertised)[0]}:{port}"
