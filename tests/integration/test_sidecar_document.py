"""docs/sidecar.md does what it says: its example is run, its manifests are read, its options exist."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from scripts.cli_reference import commands
from tests.integration.test_documents import ROOT, Block, blocks
from tests.support.calls import free_port
from tests.support.waiting import wait_until

PAGE = ROOT / "docs/sidecar.md"
ROLES = ["start", "run", "output", "not run, it needs a Go compiler", "not run, it needs that program"]


def block(role: str) -> Block:
    (found,) = [block for block in blocks(PAGE) if block.role == role]
    return found


def command_lines() -> Iterator[list[str]]:
    """Every command of ours in the blocks of the pages of the command line, as words."""
    for page in (PAGE, ROOT / "docs/cli.md"):
        for found in blocks(page):
            if found.language == "sh":
                for line in found.text.splitlines():
                    for part in line.split("|"):
                        if part.strip().startswith("etcd-grpc "):
                            yield shlex.split(part)[1:]
    yield manifest()["command"][1:]
    yield shlex.split(unit()["ExecStart"])[1:]


def manifest() -> dict[str, object]:
    """The container of the Kubernetes manifest."""
    pod = YAML(typ="safe").load(block("manifest").text)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return {**container, "seconds": pod["terminationGracePeriodSeconds"]}


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(block("unit").text)
    return parser["Service"]


def test_every_block_has_a_role() -> None:
    assert [found.role for found in blocks(PAGE)] == [*ROLES, "manifest", "unit"]


def test_example_is_registered_shown_and_ended_by_ctrl_c(etcd: str, raw, tmp_path: Path) -> None:
    port = str(free_port())
    env = {**os.environ, "ETCDCTL_ENDPOINTS": etcd}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    start, show = (block(role).text.replace("9000", port) for role in ("start", "run"))
    log = tmp_path / "log"
    with log.open("wb") as out:
        sidecar = subprocess.Popen(
            ["bash", "-c", f"exec {start}"], cwd=tmp_path, env=env, stdout=out, stderr=out
        )
    try:
        wait_until(lambda: raw.get("example.Web/"), "registered", 30)
        said = subprocess.run(
            ["bash", "-e", "-c", show], env=env, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        assert block("output").text.split() == said.splitlines()[-2].split()
        assert said.splitlines()[-1].split()[:3] == [f"127.0.0.1:{port}", "serving", "1"]
        sidecar.send_signal(signal.SIGINT)
        assert sidecar.wait(30) == 0
        assert raw.get("example.Web/") == {}
        assert "etcd-grpc: SIGINT: draining" in log.read_text()
    finally:
        sidecar.kill()
        sidecar.wait(10)


def test_commands_of_the_pages_exist_with_their_options() -> None:
    known = {command.name: command for command in commands()}
    lines = list(command_lines())
    assert len(lines) >= 10
    for words in lines:
        (name,) = {" ".join(words[:n]) for n in (1, 2)} & set(known)
        own = words[: words.index("--")] if "--" in words else words
        used = [word for word in own if word.startswith("-") and word != "-"]
        names = {option for row in known[name].options for option in re.split("/|, ", row.names)}
        assert set(used) <= names, words


def test_manifest_leaves_time_for_the_end_and_says_where_the_pod_is() -> None:
    container = manifest()
    words = container["command"]
    seconds = sum(float(words[words.index(name) + 1]) for name in ("--settle", "--grace"))
    assert container["seconds"] >= seconds + 3
    (pod_ip, members) = container["env"]
    assert (pod_ip["name"], members["name"]) == ("POD_IP", "ETCDCTL_ENDPOINTS")
    assert pod_ip["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    port = str(container["ports"][0]["containerPort"])
    assert words[words.index("--port") + 1] == port


def test_unit_signals_the_sidecar_alone() -> None:
    assert unit()["KillMode"] == "mixed"


@pytest.mark.parametrize("page", [PAGE, PAGE.with_name("sidecar.zh-CN.md")], ids=["english", "chinese"])
def test_options_that_the_text_names_exist(page: Path) -> None:
    (register,) = [command for command in commands() if command.name == "register"]
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = set(re.findall(r"`(--[a-z-]+)", text))
    names = {option for row in register.options for option in re.split("/|, ", row.names)}
    assert len(named) > 15
    assert named <= names
