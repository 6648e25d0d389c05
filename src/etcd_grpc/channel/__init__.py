"""Balanced channels: ``grpc.Channel`` and ``grpc.aio.Channel`` over one real channel an endpoint."""
