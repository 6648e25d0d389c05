"""Layouts: how a service instance is written as a key and a value in etcd.  One file for each."""

from etcd_grpc.codec.base import Codec, Entry
from etcd_grpc.codec.naming import NamingCodec

__all__ = ["Codec", "Entry", "NamingCodec"]
