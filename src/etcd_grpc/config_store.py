"""Reads and writes the service config of a service in etcd, for operators.

What is written has been checked: a config that clients would reject never gets there by this way.
"""

from __future__ import annotations

from etcd_grpc import plane
from etcd_grpc.config import EtcdArgument, EtcdConfig
from etcd_grpc.etcd import methods
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.etcd.session import Session
from etcd_grpc.shared_config import config_key, parse_stored

__all__ = ["delete_config", "read_config", "write_config"]


def read_config(service: str, etcd: EtcdArgument = None, *, timeout_s: float = 5.0) -> str | None:
    """What stands in etcd, as it is; None if nothing does.

    Raises:
        ConfigurationError: ``service`` is no service's name.
        EtcdError: etcd could not be reached within ``timeout_s`` seconds, or refused.
    """
    key = config_key(service)

    async def read(session: Session) -> str | None:
        answer = await session.transport.call(
            methods.RANGE, rpc.RangeRequest(key=key), timeout_s=timeout_s
        )
        return answer.kvs[0].value.decode(errors="replace") if answer.kvs else None

    with plane.using(EtcdConfig.of(etcd)) as control:
        return control.session.submit(read(control.session)).result()


def write_config(service: str, text: str, etcd: EtcdArgument = None, *, timeout_s: float = 5.0) -> int:
    """Put ``text`` there; every client of the service follows.  Returns the revision.

    Raises:
        ConfigurationError: ``text`` is no service config; the field is named, and nothing was written.
        EtcdError: etcd could not be reached within ``timeout_s`` seconds, or refused.
    """
    key = config_key(service)
    parse_stored(text.encode())

    async def write(session: Session) -> int:
        request = rpc.PutRequest(key=key, value=text.encode())
        answer = await session.transport.call(methods.PUT, request, timeout_s=timeout_s)
        return int(answer.header.revision)

    with plane.using(EtcdConfig.of(etcd)) as control:
        return control.session.submit(write(control.session)).result()


def delete_config(service: str, etcd: EtcdArgument = None, *, timeout_s: float = 5.0) -> bool:
    """Take it away; each channel goes back to its own.  Returns whether there was one.

    Raises:
        ConfigurationError: ``service`` is no service's name.
        EtcdError: etcd could not be reached within ``timeout_s`` seconds, or refused.
    """
    key = config_key(service)
    there = rpc.Compare(target=rpc.Compare.VERSION, result=rpc.Compare.GREATER, key=key, version=0)

    async def delete(session: Session) -> bool:
        gone = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
        request = rpc.TxnRequest(compare=[there], success=[gone])
        answer = await session.transport.call(methods.TXN, request, timeout_s=timeout_s)
        return bool(answer.succeeded)

    with plane.using(EtcdConfig.of(etcd)) as control:
        return control.session.submit(delete(control.session)).result()
