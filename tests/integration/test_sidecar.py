"""``etcd-grpc register``: real programs, registered while they are well, and never longer."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from tests.support.calls import free_port
from tests.support.etcd import RawEtcd
from tests.support.load import Load
from tests.support.processes import SERVER
from tests.support.sidecar import COMMAND, HEALTH_PROGRAM, PATIENCE_S, PORT_PROGRAM, Sidecar, runs
from tests.support.waiting import wait_until

from etcd_grpc.devcluster import Cluster

Start = Callable[..., Sidecar]


@pytest.fixture
def start(service: str, etcd: str, tmp_path: Path) -> Iterator[Start]:
    """Start a sidecar with options, a program and its arguments; all are ended with the test."""
    with contextlib.ExitStack() as stack:

        def run(
            *options: str,
            program: list[str] | None = PORT_PROGRAM,
            arguments: tuple[str, ...] = (),
            at: str = etcd,
            **more: object,
        ) -> Sidecar:
            sidecar = Sidecar(service, at, tmp_path, [*options], program, [*arguments], **more)
            return stack.enter_context(sidecar)

        yield run


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10):
        return True
    return False


# Registered while it is well.


def test_program_is_registered_with_its_facts_when_its_port_accepts_and_not_before(start, raw):
    sidecar = start(
        *("--id", "one", "--weight", "2.5", "--zone", "a", "--version", "1.2", "--ttl", "7"),
        *("--metadata", "cores=4", "--metadata", "rack=r1", "--metadata", 'tags=["x"]'),
        arguments=("--delay", "1"),
    )
    sidecar.said("^started")
    while "listening" not in sidecar.out:
        assert sidecar.entry(raw) is None or accepts(sidecar.port)
    entry = sidecar.registered(raw)
    assert entry["Metadata"] == {
        "id": "one",
        "metadata": {"cores": 4, "rack": "r1", "tags": ["x"]},
        "protocol": "grpc",
        "status": "serving",
        "version": "1.2",
        "weight": 2.5,
        "zone": "a",
    }
    (key, kv) = raw.get(f"{sidecar.service}/").popitem()
    assert key == f"{sidecar.service}/one"
    assert kv.lease
    assert sidecar.terminate() == 0
    assert sidecar.entry(raw) is None
    assert "is registered" in sidecar.err


def test_other_address_may_be_advertised_than_is_probed(start, raw):
    port = free_port()
    sidecar = start(
        *("--address", "greeter.example:443", "--probe-address", f"127.0.0.1:{port}"), port=port
    )
    wait_until(lambda: raw.get(f"{sidecar.service}/greeter.example:443"), "registered", PATIENCE_S)
    assert sidecar.terminate() == 0


def test_ipv6_is_registered_and_probed_in_brackets(start, raw):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    sidecar = start("--host", "::1", arguments=("--host", "::1"))
    assert sidecar.registered(raw)["Addr"] == f"[::1]:{sidecar.port}"
    assert sidecar.terminate() == 0


def test_pod_ip_is_advertised_and_probed(start, raw):
    """The program listens on one address of the pod alone, and it is that which is told and probed."""
    sidecar = start(environment={"POD_IP": "127.0.0.2"}, arguments=("--host", "127.0.0.2"))
    key = f"{sidecar.service}/127.0.0.2:{sidecar.port}"
    wait_until(lambda: key in raw.get(f"{sidecar.service}/"), "registered", PATIENCE_S)
    assert sidecar.terminate() == 0


def test_stopped_program_is_withdrawn_and_registered_again_as_the_same_when_it_goes_on(start, raw):
    sidecar = start()
    before = sidecar.registered(raw)
    os.kill(sidecar.program, signal.SIGSTOP)
    sidecar.withdrawn(raw)
    assert sidecar.process.poll() is None
    assert "being unwell: the program is stopped" in sidecar.err
    os.kill(sidecar.program, signal.SIGCONT)
    assert sidecar.registered(raw) == before
    assert sidecar.terminate() == 0


def test_health_decides_where_it_is_asked(start, raw):
    sidecar = start("--probe", "grpc", program=HEALTH_PROGRAM)
    sidecar.registered(raw)
    sidecar.signal(signal.SIGUSR1)  # which is passed on, and means NOT_SERVING to this program
    sidecar.withdrawn(raw)
    wait_until(lambda: "is NOT_SERVING" in sidecar.err, "said", PATIENCE_S)
    sidecar.signal(signal.SIGUSR2)
    sidecar.registered(raw)
    assert sidecar.terminate() == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("service_name", "why"),
    [("demo.Other", "demo.Other is NOT_SERVING"), ("demo.Unknown", "knows no service 'demo.Unknown'")],
)
def test_health_of_a_named_service_is_that_services(start, raw, service_name, why):
    options, port = ("--probe", "grpc", "--health-service"), free_port()
    good = start(*options, "demo.Named", program=HEALTH_PROGRAM)
    good.registered(raw)
    with subprocess.Popen([*HEALTH_PROGRAM, str(port)], stdout=subprocess.DEVNULL) as program:
        try:
            wait_until(lambda: accepts(port), "listening", PATIENCE_S)  # before its time begins to run
            bad = start(*options, service_name, "--start-timeout", "6", program=None, port=port)
            assert bad.end() == 1
            assert why in bad.err
            assert bad.entry(raw) is None
        finally:
            program.kill()


def test_program_without_a_health_service_is_told_what_to_use(start, echoes):
    sidecar = start("--probe", "grpc", "--start-timeout", "6", program=None, port=echoes[0].port)
    assert sidecar.end() == 1
    assert "has no grpc.health.v1 service: add it, or use --probe tcp" in sidecar.err


def test_health_over_tls_with_a_client_certificate(start, raw, tmp_path):
    ca = trustme.CA()
    server, client = ca.issue_cert("greeter.example"), ca.issue_cert("probe.example")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "pcert", "pkey")}
    ca.cert_pem.write_to_path(files["ca"])
    for chain, name in ((server, ""), (client, "p")):
        chain.private_key_pem.write_to_path(files[f"{name}key"])
        chain.cert_chain_pems[0].write_to_path(files[f"{name}cert"])
    arguments = (
        "--cert",
        str(files["cert"]),
        "--key",
        str(files["key"]),
        "--client-ca",
        str(files["ca"]),
    )
    options = ("--probe", "grpc", "--tls", "--tls-ca", str(files["ca"]), "--start-timeout", "60")
    mine = ("--tls-cert", str(files["pcert"]), "--tls-key", str(files["pkey"]))
    named = ("--tls-server-name", "greeter.example")
    well = start(*options, *mine, *named, program=HEALTH_PROGRAM, arguments=arguments)
    well.registered(raw)
    for wrong in (mine, named):  # the wrong name; no certificate of its own
        unwell = start(*options[:-1], "3", *wrong, program=HEALTH_PROGRAM, arguments=arguments)
        assert unwell.end() == 1
        assert "UNAVAILABLE" in unwell.err
        assert unwell.entry(raw) is None


# What runs already.


def test_what_runs_already_is_registered_and_left_running(start, raw):
    port = free_port()
    with subprocess.Popen([*HEALTH_PROGRAM, str(port)], stdout=subprocess.DEVNULL) as program:
        try:
            sidecar = start("--probe", "grpc", "--probe-timeout", "0.3", program=None, port=port)
            sidecar.registered(raw)
            program.send_signal(signal.SIGSTOP)  # it hangs, and is nobody's child here
            sidecar.withdrawn(raw)
            assert "did not answer in 0.3 s" in sidecar.err
            program.send_signal(signal.SIGCONT)
            sidecar.registered(raw)
            assert sidecar.terminate() == 0
            assert sidecar.entry(raw) is None
            assert program.poll() is None
        finally:
            program.kill()


def test_hangup_drains_where_there_is_no_program(start, raw, echoes):
    sidecar = start("--settle", "0", program=None, port=echoes[0].port)
    sidecar.registered(raw)
    sidecar.signal(signal.SIGHUP)
    assert sidecar.end() == 0
    assert sidecar.entry(raw) is None


# What goes wrong at the start.


def test_port_that_never_opens_ends_the_program_and_is_named(start, raw):
    sidecar = start("--start-timeout", "6", arguments=("--delay", "600"))
    pid = sidecar.program
    assert sidecar.end() == 1
    assert f"Tried: a TCP connection to {sidecar.address}" in sidecar.err
    assert "refused" in sidecar.err
    assert "--start-timeout" in sidecar.err
    assert not runs(pid)
    assert sidecar.entry(raw) is None


def test_port_where_something_else_listens_starts_nothing(start, raw, echoes):
    sidecar = start(port=echoes[0].port)
    assert sidecar.end() == 1
    assert f"something listens on {echoes[0].address} already" in sidecar.err
    assert sidecar.out == ""
    assert sidecar.entry(raw) is None


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("/no/such/program", "there is no program '/no/such/program'"),
        ("no-such-program", "in the directories of PATH"),
        (__file__, "is not executable"),
        ("/", "is a directory"),
    ],
)
def test_program_that_cannot_be_run_is_one_line(start, raw, program, says):
    sidecar = start(program=[program])
    assert sidecar.end() == 1
    (line,) = sidecar.err.splitlines()
    assert line.startswith("etcd-grpc: ")
    assert says in line
    assert raw.get(f"{sidecar.service}/") == {}


@pytest.mark.parametrize(
    "options",
    [
        ["--host", "0.0.0.0"],
        ["--host", "169.254.1.1"],
        ["--host", "10.0.0 .5"],
        ["--etcd", "127.0.0.1:1,10.255.255.1:2379", "--host", "127.0.0.1"],
        ["--metadata", "novalue"],
        ["--weight", "2e6"],
        ["--tls-ca", "ca.pem"],
        ["--tls"],
        ["--health-service", "x"],
        ["--probe-address", "nowhere"],
        ["--id", "a/b"],
    ],
    ids=" ".join,
)
def test_row_33_wrong_setting_starts_and_writes_nothing(start, raw, options):
    sidecar = start(*options)
    assert sidecar.end() == 1
    (line,) = sidecar.err.splitlines()
    assert line.startswith("etcd-grpc: ")
    assert sidecar.out == ""
    assert raw.get(f"{sidecar.service}/") == {}


def test_etcd_that_does_not_answer_ends_the_program(start):
    sidecar = start("--timeout", "1", at="127.0.0.1:1")
    pid = sidecar.program
    assert sidecar.end() == 1
    assert "cannot register" in sidecar.err
    assert "127.0.0.1:1" in sidecar.err
    assert not runs(pid)


def test_where_etcd_is_not_required_the_program_is_registered_when_it_comes(start, service, tmp_path):
    port = free_port()
    sidecar = start("--timeout", "0.5", "--no-require", at=f"127.0.0.1:{port}")
    wait_until(lambda: "is registered as soon as it does" in sidecar.err, "said", PATIENCE_S)
    assert runs(sidecar.program)
    with Cluster(1, client_ports=[port]) as cluster, RawEtcd(cluster.endpoints[0]) as raw:
        sidecar.registered(raw)
        assert sidecar.terminate() == 0
        assert sidecar.entry(raw) is None


def test_id_of_a_living_instance_is_refused_and_the_program_ended(start, raw):
    first = start("--id", "one", "--ttl", "6")
    first.registered(raw)
    second = start("--id", "one", "--ttl", "6")
    pid = second.program
    assert second.end() == 1
    assert "has an instance 'one' already" in second.err
    assert not runs(pid)
    assert first.status(raw) == "serving"


def test_identity_that_another_took_meanwhile_is_had_again_when_that_one_is_gone(start, raw):
    first = start("--id", "one", "--ttl", "6")
    first.registered(raw)
    os.kill(first.program, signal.SIGSTOP)
    first.withdrawn(raw)
    with start("--id", "one", "--ttl", "6") as second:
        second.registered(raw)
        os.kill(first.program, signal.SIGCONT)
        wait_until(lambda: "is not registered, trying again" in first.err, "refused", PATIENCE_S)
        assert second.status(raw) == "serving"
        assert second.terminate() == 0
    first.registered(raw)
    assert first.terminate() == 0


def test_signal_that_is_ignored_stays_ignored_for_the_program_too(start, raw):
    """As under nohup."""
    sidecar = start(through=["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"])
    sidecar.registered(raw)
    sidecar.signal(signal.SIGHUP)
    sidecar.signal(signal.SIGUSR1)
    sidecar.said("got SIGUSR1")
    assert "SIGHUP" not in sidecar.out
    assert sidecar.terminate() == 0


# Many of them.


def test_rolling_restart_behind_sidecars_fails_no_call(start, raw, service, etcd):
    """The programs are servers that know nothing of etcd; only their sidecars are told to end."""
    program = [sys.executable, str(SERVER), "--port"]
    sidecars = [start("--settle", "3", program=program) for _ in range(3)]
    for sidecar in sidecars:
        sidecar.registered(raw)
    with Load(service, [etcd], rate=30, timeout_s=20) as load:
        for old in list(sidecars):
            wait_until(lambda old=old: load.answers[old.address] > 20, "called", PATIENCE_S)
            new = start("--settle", "3", program=program)
            new.registered(raw)
            wait_until(lambda new=new: load.answers[new.address] > 0, "called", PATIENCE_S)
            assert old.terminate() == 0
        load.assert_clean()


def test_programs_arguments_are_its_own_up_to_the_last_dash():
    echo = ["--port", "1", "--", sys.executable, "-c", "import sys; print(sys.argv[1:])"]
    odd = ["--help", "--", "-x", "--port=2", "", "a b", "*"]
    done = subprocess.run(
        [COMMAND, "register", "test.Arguments", "--etcd", "127.0.0.1:1", *echo, *odd],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stdout == f"{odd}\n"
    assert done.returncode == 0, done.stderr
    assert "before it was ready" in done.stderr
