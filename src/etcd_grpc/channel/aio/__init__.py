"""The asyncio balanced channel: a ``grpc.aio.Channel``, its methods and their calls."""
