"""The example that the demonstration runs, made ready as its user would.

An installed wheel has it in ``etcd_grpc/demo/greeter``, a checkout in ``examples/greeter``.  Server and
proto file are copied to a folder, and protoc generates the rest there.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from etcd_grpc.demo.waiting import DemoError, Interrupts, wait_until
from etcd_grpc.errors import MissingExtraError
from etcd_grpc.processes.children import Children

__all__ = ["Example", "Generation", "check_generator", "find_example"]

_PROTOC_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Example:
    """The files of the example that are not generated."""

    server: Path
    proto: Path


def find_example() -> Example:
    """Where the example is, installed or in a checkout.

    Raises:
        DemoError: Nowhere.
    """
    package = Path(__file__).parent
    checkout = package.parents[2]
    places = (
        Example(package / "greeter" / "server.py", package / "greeter" / "helloworld.proto"),
        Example(checkout / "examples/greeter/server.py", checkout / "proto/helloworld.proto"),
    )
    for example in places:
        if example.server.is_file() and example.proto.is_file():
            return example
    raise DemoError(f"the example is missing from this installation: no {places[0].server}")


def check_generator() -> None:
    """Raise ``MissingExtraError`` if protoc's Python package is not installed."""
    if importlib.util.find_spec("grpc_tools") is None:
        raise MissingExtraError(
            "grpcio-tools is not installed, which generates the example's gRPC code: "
            "pip install 'etcd-grpc[demo]'"
        )


class Generation:
    """protoc at work in ``folder``; begins at once."""

    def __init__(self, example: Example, folder: Path, children: Children) -> None:
        self._folder = folder
        self._log = folder / "protoc.log"
        shutil.copyfile(example.server, folder / "server.py")
        shutil.copyfile(example.proto, folder / "helloworld.proto")
        arguments = ("-I.", "--python_out=.", "--grpc_python_out=.", "helloworld.proto")
        with self._log.open("wb") as log:
            self._process = children.spawn(
                [sys.executable, "-m", "grpc_tools.protoc", *arguments],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def finish(self, interrupts: Interrupts) -> None:
        """Wait for its end.

        Raises:
            DemoError: It failed; the message has its last lines.
        """
        process = self._process
        wait_until(lambda: process.poll() is not None, _PROTOC_TIMEOUT_S, "protoc's end", interrupts)
        if process.returncode != 0:
            said = self._log.read_text(errors="replace").strip()[-2000:]
            raise DemoError(f"protoc failed with status {process.returncode}: {said}")

    def modules(self) -> tuple[ModuleType, ModuleType]:
        """``helloworld_pb2`` and ``helloworld_pb2_grpc``, imported."""
        with _first_on_path(self._folder):
            names = ("helloworld_pb2", "helloworld_pb2_grpc")
            messages, services = map(importlib.import_module, names)
        return messages, services


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
