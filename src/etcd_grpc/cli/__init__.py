"""The ``etcd-grpc`` command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; without the ``cli`` extra say how to get it."""
    try:
        from etcd_grpc.cli.app import app  # noqa: PLC0415 - needs the extra
    except ImportError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit(f"etcd-grpc: {error.name} is not installed: pip install 'etcd-grpc[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    app()
