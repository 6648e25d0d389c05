"""What a worker process does: add these servicers, serve with these options.  Travels as a pickle.

The rule: a worker is a process of its own, started anew and not forked, since gRPC does not survive a
fork.  So it imports the application itself, and what cannot be found by importing is refused with a
word on what to do.
"""

from __future__ import annotations

import inspect
import multiprocessing.spawn
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.server.options import ServeOptions
from etcd_grpc.server.workers.importing import Importable, where_raised

__all__ = ["Job", "packed", "preparation", "unpacked"]


@dataclass(frozen=True, slots=True)
class Job:
    """The work of one worker.

    Attributes:
        add_servicers: As for ``serve``, or its name.
        options: Those of this worker.
        asyncio: Serve with ``grpc.aio``; a coroutine function is always served so.
        on_ready: As for ``serve``.
        setup: Called before the application is imported; such as logging.
    """

    add_servicers: Callable[..., Any] | Importable
    options: ServeOptions
    asyncio: bool = False
    on_ready: Callable[..., Any] | None = None
    setup: Callable[[], object] | None = None

    def load(self) -> tuple[Callable[..., Any], bool]:
        """The function, and whether it is for asyncio.

        Raises:
            ConfigurationError: It cannot be imported.
        """
        add = self.add_servicers
        function = add.load() if isinstance(add, Importable) else add
        return function, self.asyncio or inspect.iscoroutinefunction(function)


def packed(job: Job) -> bytes:
    """The job for another process.

    Raises:
        ConfigurationError: Something in it cannot be taken there; the message says what.
    """
    try:
        raw = pickle.dumps(job)
    except Exception as error:  # whatever __reduce__ of the application's objects raises
        raise ConfigurationError(_why_not(job, error)) from error
    if b"__main__" in raw and not _main_can_be_imported():
        raise ConfigurationError(
            "workers import what they serve, but this __main__ is no file that they could import: "
            "put add_servicers into a module"
        )
    return raw


def _main_can_be_imported() -> bool:
    return bool({"init_main_from_name", "init_main_from_path"} & preparation().keys())


def _why_not(job: Job, error: Exception) -> str:
    for name, value in (
        ("add_servicers", job.add_servicers),
        ("on_ready", job.on_ready),
        ("interceptors", job.options.interceptors),
        ("credentials", job.options.credentials),
        ("options", job.options),
    ):
        try:
            pickle.dumps(value)
        except Exception as its_error:  # noqa: BLE001 - as above
            what = f"{name}={getattr(value, '__qualname__', None) or type(value).__name__}"
            return (
                f"workers are processes of their own, and {what} cannot be taken there ({its_error}): "
                "use functions and classes at the top of a module"
            )
    return f"this cannot be taken to worker processes: {error}"


def preparation() -> Mapping[str, Any]:
    """What makes a new process look like this one: its path, its folder, its ``__main__``.

    Raises:
        ConfigurationError: This process is a worker that has not come to serving: its ``__main__``
            calls ``serve`` when it is imported.
    """
    if _preparing:
        raise ConfigurationError(
            "a worker imports the program that started it, and that calls serve again: put the call "
            'under if __name__ == "__main__":'
        )
    found = multiprocessing.spawn.get_preparation_data("etcd-grpc-worker")
    # A secret that must not be pickled, and a choice that is none of our business.
    return {key: value for key, value in found.items() if key not in {"authkey", "start_method"}}


_preparing: list[bool] = []


def unpacked(prepared: Mapping[str, Any], raw: bytes) -> Job:
    """In the worker: the job.

    Raises:
        ConfigurationError: The application cannot be imported.
    """
    prepared = dict(prepared)
    if b"__main__" not in raw:  # nothing in it is needed, and it may be a program of any size
        prepared.pop("init_main_from_name", None)
        prepared.pop("init_main_from_path", None)
    _preparing.append(True)
    try:
        multiprocessing.spawn.prepare(prepared)
        job = pickle.loads(raw)  # noqa: S301 - our parent's
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"a worker cannot import what it shall serve: {where_raised(error)}"
        ) from error
    finally:
        _preparing.clear()
    assert isinstance(job, Job)
    return job
