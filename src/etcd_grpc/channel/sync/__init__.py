"""The synchronous balanced channel: a ``grpc.Channel``, its methods and their calls."""
