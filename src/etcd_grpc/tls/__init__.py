"""TLS for channels and servers, with certificates that are replaced on disk while they are in use."""

from etcd_grpc.tls.watcher import rejections

__all__ = ["rejections"]
