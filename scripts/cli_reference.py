"""Write the commands and options of ``etcd-grpc`` into docs/cli.md and docs/cli.zh-CN.md.

    python scripts/cli_reference.py           write them
    python scripts/cli_reference.py --check   say whether they are current; change nothing

Between a command's two comments the pages are generated; all else in them is written by hand and kept.
A command that has no section yet gets one at the end.  A test checks that both pages are current.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from etcd_grpc.cli.app import app

__all__ = ["PAGES", "Command", "Option", "PageError", "commands", "render"]

ROOT = Path(__file__).resolve().parent.parent
# Each page, and the headings of its tables.
PAGES = {
    "docs/cli.md": ("argument, option", "value", "default", "meaning"),
    "docs/cli.zh-CN.md": ("参数、选项", "值", "默认", "含义"),
}
_ENGLISH = "docs/cli.md"
_SECTION = re.compile(r"<!-- command: (.+?) -->\n.*?<!-- end of \1 -->", re.DOTALL)
_WIDTH = 120


class PageError(Exception):
    """A page has a section too many: for a command that there is not, or twice; it is named."""


@dataclass(frozen=True, slots=True)
class Option:
    """One row: what is written, what it takes, what it is otherwise, what it means."""

    names: str
    value: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command with all words of its name, its help and its parameters."""

    name: str
    help: str
    arguments: tuple[Option, ...]
    options: tuple[Option, ...]

    @property
    def usage(self) -> str:
        """One line, as one would write it."""
        options = " [OPTIONS]" if self.options else ""
        return " ".join([f"etcd-grpc {self.name}{options}", *(a.names for a in self.arguments)])


def commands(program: typer.Typer = app, prefix: str = "") -> Iterator[Command]:
    """All commands, in the order in which they were added; a group's under its name."""
    for registered in program.registered_commands:
        callback = registered.callback
        if callback is None or registered.hidden:
            continue
        name = registered.name or callback.__name__.replace("_", "-")
        rows = list(_parameters(callback))
        yield Command(
            f"{prefix}{name}",
            registered.help or inspect.getdoc(callback) or "",
            tuple(row for row, is_option in rows if not is_option),
            tuple(row for row, is_option in rows if is_option),
        )
    for group in program.registered_groups:
        if group.typer_instance is not None and not group.hidden:
            yield from commands(group.typer_instance, f"{prefix}{group.name} ")


def _parameters(callback: Any) -> Iterator[tuple[Option, bool]]:
    """Each parameter of a command's function, and whether it is an option."""
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        if get_origin(hints[name]) is None or not hasattr(hints[name], "__metadata__"):
            continue  # typer's context
        kind, *more = get_args(hints[name])
        (info,) = [part for part in more if isinstance(part, OptionInfo | ArgumentInfo)]
        if not info.hidden:
            yield _row(name, kind, info, parameter.default), isinstance(info, OptionInfo)


def _row(name: str, kind: Any, info: OptionInfo | ArgumentInfo, default: Any) -> Option:
    kind, many = _plain(kind)
    if isinstance(info, ArgumentInfo):
        names = info.metavar or name.upper()
        names = (
            names if default is inspect.Parameter.empty else f"[{names}...]" if many else f"[{names}]"
        )
        return Option(names, "", "", info.help or "")
    # In Annotated the first name stands where the default would.
    first = [info.default] if isinstance(info.default, str) and info.default.startswith("-") else []
    declared = [*first, *(info.param_decls or ())]
    given = declared or [f"--{name.replace('_', '-')}"]
    negated = kind is bool and not declared
    names = f"{given[0]}/--no-{name.replace('_', '-')}" if negated else ", ".join(given)
    shown = default if info.show_default else None
    return Option(names, _value(kind, info), _default(kind, shown, names), info.help or "")


def _plain(kind: Any) -> tuple[Any, bool]:
    """The type without its ``None``, and of a list that of its items."""
    if get_origin(kind) is Union or type(kind).__name__ == "UnionType":
        (kind,) = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is list:
        return get_args(kind)[0], True
    return kind, False


def _value(kind: Any, info: OptionInfo) -> str:
    if kind is bool:
        return ""
    if info.metavar:
        return info.metavar
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(str(member.value) for member in kind)
    named = {int: "N", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")
    low, high = info.min, info.max
    if low is not None and high is not None:
        return f"{low:g}..{high:g}"
    return named if low is None else f"{named} ≥ {low:g}"


def _default(kind: Any, default: Any, names: str) -> str:
    if kind is bool and "/" in names:
        yes, no = names.split("/")
        return "" if default is None else yes if default else no
    if isinstance(default, enum.Enum):
        return str(default.value)
    if default in (None, False, "", inspect.Parameter.empty):
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


# Markdown.


def render(page: str, text: str, found: Sequence[Command]) -> str:
    """``text`` with the section of every command as it should be.

    Args:
        page: Which of ``PAGES`` it is.
        text: The page as it stands.
        found: The commands that there are.

    Raises:
        PageError: The page has a section for another one, or two for one.
    """
    known = {command.name: command for command in found}
    there = _SECTION.findall(text)
    for name in there:
        if name not in known:
            raise PageError(f"{page} has a section of {name!r}, a command that there is not: remove it")
        if there.count(name) > 1:
            raise PageError(f"{page} has {there.count(name)} sections of {name!r}: remove all but one")
    text = _SECTION.sub(lambda section: _section(page, known[section[1]]), text)
    for name, command in known.items():
        if name not in there:
            text = f"{text.rstrip()}\n\n## {name}\n\n{_first(command)}\n\n{_section(page, command)}\n"
    return text


def _section(page: str, command: Command) -> str:
    parts = [f"<!-- command: {command.name} -->", f"```text\n{command.usage}\n```"]
    if page == _ENGLISH:
        parts += [_paragraph(text) for text in _paragraphs(command)[1:]]
    if rows := [*command.arguments, *command.options]:
        parts.append(_table(PAGES[page], rows))
    return "\n\n".join(parts) + f"\n\n<!-- end of {command.name} -->"


def _paragraphs(command: Command) -> list[str]:
    return [" ".join(text.split()) for text in command.help.split("\n\n") if text.strip()]


def _first(command: Command) -> str:
    return _paragraph(_paragraphs(command)[0]) if command.help else ""


def _paragraph(text: str) -> str:
    if text.startswith("etcd-grpc "):
        return f"`{text}`"
    return "\n".join(textwrap.wrap(_escaped(text), _WIDTH, break_on_hyphens=False))


def _table(headings: Sequence[str], rows: Sequence[Option]) -> str:
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for row in rows:
        code = [f"`{text}`" if text else "" for text in (row.names, row.value, row.default)]
        cells = [cell.replace("|", "\\|") for cell in (*code, _escaped(row.meaning))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return re.sub(r"([<*`\[\]]|(?<![a-zA-Z])_|_(?![a-zA-Z]))", r"\\\1", text)


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or check them; returns the exit status."""
    found = list(commands())
    stale = []
    for page in PAGES:
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        try:
            after = render(page, before, found)
        except PageError as error:
            sys.exit(str(error))
        if after != before:
            stale.append(page)
            if "--check" not in arguments:
                path.write_text(after, encoding="utf-8")
    told = (
        "are not current: run python scripts/cli_reference.py" if "--check" in arguments else "written"
    )
    if stale:
        print(f"{' and '.join(stale)} {told}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
