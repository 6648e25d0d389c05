"""What users may rely on: the names, their docstrings, the twin for asyncio."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import etcd_grpc
from etcd_grpc import _version

NAMES = [
    "AuthenticationError",
    "Channel",
    "ConfigurationError",
    "DuplicateInstanceError",
    "Endpoint",
    "EtcdConfig",
    "EtcdError",
    "EtcdGrpcError",
    "EtcdUnavailableError",
    "Event",
    "Instance",
    "Lifecycle",
    "Listener",
    "MissingExtraError",
    "Registration",
    "Snapshot",
    "Status",
    "StoredDataError",
    "__version__",
    "aio",
    "insecure_channel",
    "listen",
    "register",
    "secure_channel",
    "serve",
]
AIO_NAMES = [
    "AsyncRegistration",
    "Channel",
    "Lifecycle",
    "insecure_channel",
    "register",
    "secure_channel",
    "serve",
]
GENERATED = "etcd_grpc.etcd.rpc_pb2"


def public_modules() -> list[str]:
    """Every module of the package with a public name, but for the generated one."""
    found = [module.name for module in pkgutil.walk_packages(etcd_grpc.__path__, "etcd_grpc.")]
    return ["etcd_grpc"] + [name for name in found if name != GENERATED and not re.search(r"\._", name)]


MODULES = public_modules()


def imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except etcd_grpc.MissingExtraError as missing:
        pytest.skip(str(missing))


def is_code(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isfunction(value)


def defined_here(module: ModuleType) -> Iterator[str]:
    """Public classes and functions that the module itself defines."""
    for name, value in vars(module).items():
        if not name.startswith("_") and is_code(value) and value.__module__ == module.__name__:
            yield name


def test_root_exports_exactly_these_names() -> None:
    assert etcd_grpc.__all__ == NAMES
    assert len(NAMES) <= 25


def test_aio_exports_exactly_these_names() -> None:
    assert etcd_grpc.aio.__all__ == AIO_NAMES


@pytest.mark.parametrize("name", MODULES)
def test_module_says_what_it_is(name: str) -> None:
    assert imported(name).__doc__


@pytest.mark.parametrize("name", MODULES)
def test_module_lists_what_is_public(name: str) -> None:
    module = imported(name)
    if any(defined_here(module)):
        assert hasattr(module, "__all__")


@pytest.mark.parametrize("name", MODULES)
def test_listed_names_exist_once(name: str) -> None:
    module = imported(name)
    listed = list(getattr(module, "__all__", []))
    assert [missing for missing in listed if not hasattr(module, missing)] == []
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_class_and_function_has_a_docstring(name: str) -> None:
    module = imported(name)
    without = []
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        # A dataclass without a docstring gets its signature in place of one.
        if is_code(value) and (not value.__doc__ or value.__doc__.startswith(f"{public}(")):
            without.append(public)
    assert without == []


@pytest.mark.parametrize(
    "name", [*(f"etcd_grpc.{name}" for name in NAMES), *(f"etcd_grpc.aio.{name}" for name in AIO_NAMES)]
)
def test_everything_a_user_can_call_has_a_docstring(name: str) -> None:
    owner, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(owner), attribute)
    if not inspect.isclass(value):
        return
    without = [
        member
        for member, found in inspect.getmembers(value)
        if not member.startswith("_")
        and (inspect.isfunction(found) or isinstance(found, property))
        and not inspect.getdoc(found)
        and not inspect.getdoc(getattr(value, member))  # an inherited one
    ]
    assert without == []


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", ["insecure_channel", "secure_channel", "register", "serve"])
def test_aio_functions_take_what_the_synchronous_ones_take(name: str) -> None:
    ours = parameters(getattr(etcd_grpc, name))
    twins = parameters(getattr(etcd_grpc.aio, name))
    if name.endswith("_channel"):
        assert twins.pop("interceptors")
    assert list(ours) == list(twins)
    for parameter in ours:
        assert ours[parameter].default == twins[parameter].default
        assert ours[parameter].kind == twins[parameter].kind


def test_version_is_the_one_that_the_package_is_built_with() -> None:
    assert etcd_grpc.__version__ == _version.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev|\.post)\d+)?", etcd_grpc.__version__)
