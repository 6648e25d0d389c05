"""Do a ``Job``: here, or with workers."""

from __future__ import annotations

import asyncio

from etcd_grpc.server import aio, sync
from etcd_grpc.server.workers.job import Job
from etcd_grpc.server.workers.supervise import supervise

__all__ = ["perform"]


def perform(job: Job) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        job: What to serve; one worker is this process.

    Raises:
        EtcdGrpcError: As ``serve``.
    """
    if job.options.workers > 1:
        supervise(job)
        return
    function, is_asyncio = job.load()
    if is_asyncio:
        asyncio.run(aio.run(function, job.options, job.on_ready))
    else:
        sync.run(function, job.options, job.on_ready)
