"""TLS for channels and servers, with certificates that are replaced on disk while they are in use.

``ChannelTls`` goes into ``secure_channel``; ``etcd_grpc.server.tls.ServerTls`` is its counterpart.
"""

from etcd_grpc.tls.channel import ChannelTls
from etcd_grpc.tls.watcher import rejections

__all__ = ["ChannelTls", "rejections"]
