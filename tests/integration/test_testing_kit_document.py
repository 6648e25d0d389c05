"""docs/testing.md does what it says: its files are saved and its commands run, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from etcd_grpc import testing

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = ROOT / "docs" / "testing.md"
CHINESE = ROOT / "docs" / "testing.zh-CN.md"
PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A block of code, and what the comment above says that the reader does with it."""

    role: str
    language: str
    text: str


def blocks(path: Path) -> list[Block]:
    parsed = PARSER.parse(path.read_text(encoding="utf-8"))
    found = []
    for before, token in pairwise([Token("", "", 0), *parsed]):
        if token.type == "fence":
            told = re.fullmatch(r"<!-- test: (.+) -->\s*", before.content)
            assert told is not None, f"nobody says what to do with:\n{token.content}"
            found.append(Block(told[1], token.info.strip(), token.content))
    return found


def shape(path: Path) -> list[str]:
    wanted = {"heading_open", "table_open", "tr_open", "list_item_open", "fence"}
    parsed = PARSER.parse(path.read_text(encoding="utf-8"))
    return [f"{token.type} {token.tag}" for token in parsed if token.type in wanted]


@pytest.mark.timeout(320)
def test_the_tests_of_the_document_pass(tmp_path: Path) -> None:
    strange = ("ETCDCTL_", "PYTEST_", "PYTHONPATH", "COLUMNS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    ran = 0
    for block in blocks(ENGLISH):
        match block.role.split():
            case ["file", name]:
                (tmp_path / name).write_text(block.text)
            case ["run"]:
                done = subprocess.run(
                    ["bash", "-e", "-c", block.text],
                    cwd=tmp_path,
                    env=env,
                    capture_output=True,
                    text=True,
                    timeout=150,
                    check=False,
                )
                assert done.returncode == 0, done.stdout + done.stderr
                ran += int(re.findall(r"^(\d+) passed in", done.stdout, re.MULTILINE)[0])
            case role:
                assert role == ["install"]
    written = sum(block.text.count("\ndef test_") for block in blocks(ENGLISH))
    assert ran == written > 5


def test_both_languages_have_the_same_code_and_shape() -> None:
    assert blocks(CHINESE) == blocks(ENGLISH)
    assert shape(CHINESE) == shape(ENGLISH)


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=["english", "chinese"])
def test_what_the_document_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"etcd-grpc\[(\w+)\]", text)) == {"testing"} <= set(extras)
    for owner, first in {
        testing.Cluster: "| `kill(i)`",
        testing.Admin: "| `compact()`",
        testing.Proxy: "| `cut()`",
    }.items():
        (table,) = [part for part in text.split("\n\n") if f"\n{first}" in part]
        names = {
            name
            for row in table.splitlines()[2:]
            for name in re.findall(r"`(\w+)[`(]", row.split("|")[1])
        } - set(testing.__all__)
        assert len(names) >= 6
        assert [name for name in names if not hasattr(owner, name)] == []
        public = {name for name in vars(owner) if not name.startswith("_")}
        assert public - names <= {
            *("start", "stop", "close", "environment", "admin"),
            *("port", "address", "accepted", "open_connections", "alarms"),
        }
