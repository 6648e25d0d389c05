"""``package.module:name``: the application, named in a way that any process can follow.

The rule: what is wrong with the name or with the application's module is one message that says where.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etcd_grpc.errors import ConfigurationError

__all__ = ["Importable", "where_raised"]


@dataclass(frozen=True, slots=True)
class Importable:
    """A function that can be imported.

    Args:
        name: ``package.module:function``, or ``package.module:object.method``.

    Raises:
        ConfigurationError: The name has not this form.
    """

    name: str

    def __post_init__(self) -> None:
        module, _, attribute = self.name.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
            raise ConfigurationError(
                f"{self.name!r:.200} does not name a function: write package.module:add_servicers"
            )

    def load(self) -> Callable[..., Any]:
        """Import it.

        Raises:
            ConfigurationError: It cannot be imported, or is no function.
        """
        module_name, _, attributes = self.name.partition(":")
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                raise ConfigurationError(
                    f"there is no module {error.name}: run this where it can be imported from, or "
                    "put its folder into PYTHONPATH"
                ) from error
            raise _failed(module_name, error) from error
        except Exception as error:
            raise _failed(module_name, error) from error
        for attribute in attributes.split("."):
            try:
                found = getattr(found, attribute)
            except AttributeError:
                raise ConfigurationError(
                    f"{module_name} has no {attributes}{_alternatives(found)}"
                ) from None
        if not callable(found):
            raise ConfigurationError(
                f"{self.name} is {type(found).__name__}, and must be a function that adds servicers "
                "to the server that it is given"
            )
        function: Callable[..., Any] = found
        return function


def where_raised(error: BaseException) -> str:
    """The error in one line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def _failed(module_name: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"importing {module_name} failed: {where_raised(error)}")


def _alternatives(module: Any) -> str:
    """The functions that could have been meant."""
    own = getattr(module, "__name__", None)
    found = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    names = [n for n, v in found.items() if callable(v) and getattr(v, "__module__", "") == own]
    return f"; it has {', '.join(sorted(names)[:5])}" if names else ""
