"""The command line, as processes: what it prints, and how it ends."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import etcd_grpc
from etcd_grpc.devcluster import Cluster
from etcd_grpc.etcd import methods, rpc_pb2

COMMAND = str(Path(sys.executable).with_name("etcd-grpc"))
COMMANDS = ["config", "demo", "dev-ca", "devcluster", "endpoints", "register", "serve", "version"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(members=1) as running:
        yield running


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
    return subprocess.Popen(
        [COMMAND, *arguments],
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    process = start(*arguments, **environment)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def put(cluster: Cluster, key: bytes, value: bytes) -> None:
    with grpc.insecure_channel(cluster.endpoints[0]) as channel:
        rpc = channel.unary_unary(methods.PUT.path, methods.PUT.serialize, methods.PUT.deserialize)
        rpc(rpc_pb2.PutRequest(key=key, value=value), timeout=20)


def entry(address: str, **metadata: object) -> bytes:
    return json.dumps({"Op": 0, "Addr": address, "Metadata": metadata}).encode()


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(arguments: list[str]) -> None:
    assert run(*arguments) == (0, f"etcd-grpc {etcd_grpc.__version__}\n", "")


def test_help_lists_every_command() -> None:
    status, out, _ = run("--help")
    assert status == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    assert command in out


def test_an_unknown_command_is_a_wrong_command_line() -> None:
    status, out, err = run("no-such-command")
    assert (status, out) == (2, "")
    assert "no-such-command" in err


def test_endpoints_shows_what_is_registered(cluster: Cluster) -> None:
    with etcd_grpc.register(
        "cli.Shown",
        address="127.0.0.1:5001",
        id="one",
        weight=2.5,
        zone="a",
        version="1.2",
        settle_s=0,
        etcd=cluster.endpoints,
    ):
        status, out, err = run("endpoints", "cli.Shown", **cluster.environment())
        lines = [line.split() for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert out.startswith("cli.Shown: 1 registered; etcd at ")
    assert lines[-2] == ["ADDRESS", "STATUS", "WEIGHT", "ZONE", "VERSION", "ID"]
    assert lines[-1] == ["127.0.0.1:5001", "serving", "2.5", "a", "1.2", "one"]


def test_endpoints_as_json(cluster: Cluster) -> None:
    target = "etcd:///cli.Json"
    with etcd_grpc.register(
        "cli.Json", address="127.0.0.1:5002", metadata={"k": [1]}, settle_s=0, etcd=cluster.endpoints
    ) as registration:
        status, out, err = run("endpoints", target, "--json", "--etcd", ",".join(cluster.endpoints))
    assert (status, err) == (0, "")
    found = json.loads(out)
    (endpoint,) = found["endpoints"]
    assert (found["service"], found["connected"]) == ("cli.Json", True)
    assert (endpoint["address"], endpoint["id"]) == ("127.0.0.1:5002", registration.instance.id)
    assert endpoint["metadata"] == {"k": [1]}
    facts = {field.name for field in dataclasses.fields(etcd_grpc.Endpoint)}
    assert set(endpoint) == facts | {"held"}


def test_endpoints_of_a_service_that_is_not_there(cluster: Cluster) -> None:
    status, out, err = run("endpoints", "cli.Nobody", **cluster.environment())
    assert (status, err) == (0, "")
    assert out.startswith("cli.Nobody: 0 registered; etcd at ")


def test_endpoints_lets_no_stored_text_command_the_terminal(cluster: Cluster) -> None:
    nasty = "\x1b]0;owned\x07\x1b[31m[bold]red[/bold]\u202eleft\x9b2J\x7f\r\n"
    put(cluster, b"cli.Nasty/a", entry("127.0.0.1:5003", id=nasty, zone=nasty, version=nasty))
    put(cluster, b"cli.Nasty/b", entry("127.0.0.1:5004", zone="z" * 2_000))
    put(cluster, b"cli.Nasty/c\x1b[2J", entry("127.0.0.1:5005"))
    put(cluster, b"cli.Nasty/d", b"\x1b[2Jno json")
    put(cluster, b"cli.Nasty/e", entry("\x1b[2J:1"))
    status, out, err = run("endpoints", "cli.Nasty", **cluster.environment())
    assert status == 0
    assert all(c.isprintable() for line in (out + err).split("\n") for c in line), (out, err)
    assert r"\x1b[31m[bold]red[/bold]\u202eleft\x9b2J\x7f\r\n" in out
    assert len(out.splitlines()) == 4
    assert max(map(len, out.splitlines())) < 500
    assert err.count("skipped an entry of cli.Nasty that is no endpoint") == 3
    status, out, _ = run("endpoints", "cli.Nasty", "--json", **cluster.environment())
    assert status == 0
    assert all(c.isprintable() for c in out.rstrip("\n"))
    assert json.loads(out)["endpoints"][0]["zone"] == nasty


def test_endpoints_watch_shows_changes_until_ctrl_c(cluster: Cluster) -> None:
    process = start("endpoints", "cli.Watched", "--watch", "--json", **cluster.environment())
    assert process.stdout is not None
    shown = (json.loads(line)["endpoints"] for line in process.stdout)
    assert next(shown) == []
    with etcd_grpc.register(
        "cli.Watched", address="127.0.0.1:5006", settle_s=0, etcd=cluster.endpoints
    ):
        appeared = next(found for found in shown if found)
        assert appeared[0]["address"] == "127.0.0.1:5006"
    assert next(found for found in shown if not found) == []
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


def test_endpoints_without_etcd_is_one_line_after_the_timeout() -> None:
    began = time.monotonic()
    status, out, err = run("endpoints", "cli.Any", "--etcd", "127.0.0.1:1", "--timeout", "1")
    assert time.monotonic() - began < 15
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(
        "etcd-grpc: cannot read service cli.Any: etcd at 127.0.0.1:1 is not connected"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a//b"], "service name 'a//b'"),
        (["etcd://host/service"], "target 'etcd://host/service'"),
        (["ok", "--etcd", "no-port"], "address 'no-port' is not host:port"),
        (["\x1b[2J"], r"service name '\x1b[2J'"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments: list[str], message: str) -> None:
    status, out, err = run("endpoints", *arguments)
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(f"etcd-grpc: {message}")


def test_config_is_set_shown_and_deleted(cluster: Cluster, tmp_path: Path) -> None:
    etcd = {"ETCDCTL_ENDPOINTS": cluster.endpoints[0]}
    file = tmp_path / "config.json"
    file.write_text('{"loadBalancingConfig": [{"least_request": {}}]}')
    assert run("config", "get", "a.B", **etcd) == (
        1,
        "",
        "etcd-grpc: a.B has no service config in etcd\n",
    )
    status, out, err = run("config", "set", "a.B", str(file), **etcd)
    assert (status, err) == (0, "")
    assert out.startswith("a.B has a new service config, revision ")
    assert run("config", "get", "a.B", **etcd) == (0, file.read_text() + "\n", "")
    assert run("config", "delete", "a.B", **etcd)[1] == "a.B has no service config any more\n"
    assert run("config", "delete", "a.B", **etcd)[1] == "a.B had none\n"


def test_config_that_clients_would_reject_is_not_written(cluster: Cluster, tmp_path: Path) -> None:
    etcd = {"ETCDCTL_ENDPOINTS": cluster.endpoints[0]}
    file = tmp_path / "config.json"
    file.write_text('{"loadBalancingConfig": [{"no_such": {}}]}')
    status, out, err = run("config", "set", "c.D", str(file), **etcd)
    assert (status, out) == (1, "")
    assert "unknown policy 'no_such'; known are" in err
    assert run("config", "get", "c.D", **etcd)[0] == 1
    status, _, err = run("config", "set", "c.D", str(tmp_path / "missing.json"), **etcd)
    assert status == 1
    assert "cannot read" in err
    assert "Traceback" not in err
