"""Row 43, and the rest of what can happen to worker processes and their parent."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import subprocess
from collections.abc import Iterator

import grpc
import pytest
from tests.support.calls import RETRY
from tests.support.etcd import RawEtcd
from tests.support.family import APP, COMMAND, ROOT, Family, alive, family
from tests.support.load import Load
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.testing import Cluster

FREE = ("--port", "0")
QUICK = ("--settle", "0.3", "--grace", "5")


@pytest.fixture(scope="module")
def etcd() -> Iterator[str]:
    with Cluster(1) as cluster:
        yield cluster.endpoints[0]


def registered(etcd: str, service: str) -> int:
    with RawEtcd(etcd) as raw:
        return len(raw.get(f"{service}/"))


def processes(family: Family, load: Load) -> bool:
    """Whether every worker answers."""
    return {str(pid) for pid in family.workers.values()} <= set(load.answers)


def test_each_worker_is_an_instance_and_all_leave_with_sigterm(etcd, service):
    with family(service, etcd, 3, *FREE, *QUICK) as made, Load(service, [etcd]) as load:
        assert registered(etcd, service) == 3
        assert len({address for *_, address in made.served}) == 3
        wait_until(lambda: processes(made, load), "all are called")
        load.assert_clean()
    with family(service, etcd, 2, *FREE, *QUICK) as made:
        pids = list(made.workers.values())
        assert made.process.terminate(60) == 0
        assert registered(etcd, service) == 0
        assert not any(map(alive, pids))
        (line,) = made.said("all workers have ended")
        assert "0 workers serving, 0 restarts" in line


@pytest.mark.parametrize("ports", ["free", "own"])
def test_rolling_restart_under_load_fails_no_call(etcd, service, port, ports):
    options = FREE if ports == "free" else ("--port", str(port))
    with family(service, etcd, 2, *options) as made, Load(service, [etcd], rate=200) as load:
        for _ in range(2):
            before = set(made.workers.values())
            load.forget()
            made.roll()
            wait_until(lambda: processes(made, load), "the new ones are called")
            assert not any(map(alive, before))
            load.assert_clean()
            assert len({address for *_, address in made.served[-2:]}) == 2
        assert registered(etcd, service) == 2


def test_rolling_restart_on_a_shared_port_loses_no_more_than_what_arrives_as_a_worker_stops(
    etcd, service
):
    with (
        family(service, etcd, 2, *FREE, "--shared-port") as made,
        Load(service, [etcd], rate=200) as load,
    ):
        before = set(made.workers.values())
        made.roll()
        assert len({address for *_, address in made.served}) == 1
        assert not any(map(alive, before))
        assert registered(etcd, service) == 2
        # Two threads call, and two workers stop.
        assert len(load.failures) <= 4, load.failures
        assert all("CANCELLED" in failure for failure in load.failures), load.failures
        answered = load.answers.total()
        wait_until(lambda: load.answers.total() > answered + 100, "calls go on")


def test_rolling_restart_at_which_new_code_does_not_load_keeps_the_old(etcd, service, port, tmp_path):
    module = tmp_path / "fresh_app.py"
    module.write_text("from tests.support.worker_app import add_servicers\n")
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    app = "fresh_app:add_servicers"
    with (
        family(service, etcd, 2, "--port", str(port), app=app, cwd=tmp_path, **environment) as made,
        Load(service, [etcd]) as load,
    ):
        before = dict(made.workers)
        module.write_text("this is no Python\n")
        made.signal(signal.SIGHUP)
        wait_until(lambda: made.said("did not come up"), "the roll has ended", 60)
        assert "SyntaxError" in made.said("is lost")[0]
        assert made.workers == before
        assert all(map(alive, before.values()))
        module.write_text("from tests.support.worker_app import add_servicers\n")
        made.roll()
        load.assert_clean()


def test_a_killed_worker_loses_only_what_was_in_flight_on_it(etcd, service):
    with (
        family(service, etcd, 2, *FREE) as made,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
        concurrent.futures.ThreadPoolExecutor(8) as threads,
    ):
        who = channel.unary_unary("/echo/UnaryUnary")
        slow = channel.unary_unary("/echo/Slow")
        wait_until(
            lambda: len({who(b"", timeout=20, wait_for_ready=True) for _ in range(4)}) == 2,
            "both are called",
        )
        calls = [threads.submit(slow, b"8", timeout=60) for _ in range(8)]
        # A call that was not sent yet would go to the other one.
        wait_until(lambda: len(made.said("sleeps")) == 8, "they are under way", 20)
        victim, on_it = made.workers[0], len(made.said("worker 0 | sleeps"))
        os.kill(victim, signal.SIGKILL)
        failed = [call for call in calls if call.exception() is not None]
        answered = {call.result().split()[0] for call in calls if call.exception() is None}
        assert 0 < on_it < 8
        assert len(failed) == on_it
        assert all(call.exception().code() is grpc.StatusCode.UNAVAILABLE for call in failed)
        assert answered == {str(made.workers[1]).encode()}
        wait_until(lambda: made.workers[0] != victim, "it is replaced", 60)
        assert made.said("it was ended by SIGKILL")
        new = str(made.workers[0]).encode()
        wait_until(lambda: who(b"", timeout=20).split()[0] == new, "the new one is called", 30)


@pytest.mark.parametrize("thread", ["", "endless"])
def test_a_killed_parent_leaves_no_worker(etcd, service, thread):
    with family(service, etcd, 2, *FREE, *QUICK, APP_THREAD=thread) as made:
        workers = list(made.workers.values())
        with Load(service, [etcd]) as load:
            wait_until(lambda: processes(made, load), "all are called")
            made.process.kill()
        wait_until(lambda: registered(etcd, service) == 0, "they withdraw in order", 30)
        wait_until(lambda: not any(map(alive, workers)), "no worker is left", 30)


def test_row_43_one_worker_that_crashes_always(etcd, service):
    """The others serve, and its restarts back off."""
    with family(service, etcd, 3, *FREE, APP_CRASH="0") as made:
        with Load(service, [etcd], service_config=RETRY) as load:
            wait_until(lambda: made.said("(6 times in a row)"), "it has crashed six times", 90)
            steady = {str(made.workers[place]) for place in (1, 2)}
            assert steady <= set(load.answers)
            load.assert_clean()
        delays = [float(delay) for delay in re.findall(r"again in ([\d.]+) s", made.process.output)]
        assert delays[0] == 0
        assert delays[5] > delays[1]
        assert made.process.alive
        # Each time another process; one that crashed early has not said that it serves.
        crashed = re.findall(r"worker 0 \(process (\d+)\) is lost", made.process.output)
        assert len(crashed) == len(set(crashed)) >= 6


def test_row_43_when_none_is_left_the_parent_ends(etcd, service):
    done = serve(service, etcd, "--workers", "2", *FREE, APP_CRASH="0,1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("etcd-grpc: no worker is left")
    assert "(4 times in a row)" in done.stderr
    assert "Traceback" not in done.stderr


def serve(service: str, etcd: str, *more: str, app: str = APP, **environment: str):
    command = [COMMAND, "serve", app, "--service", service, "--etcd", etcd, *more]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_after_the_parent_was_killed_calls_under_way_are_finished(etcd, service):
    with (
        family(service, etcd, 2, *FREE) as made,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
        concurrent.futures.ThreadPoolExecutor(4) as threads,
    ):
        slow = channel.unary_unary("/echo/Slow")
        calls = [threads.submit(slow, b"3", timeout=60, wait_for_ready=True) for _ in range(4)]
        wait_until(lambda: len(made.said("sleeps")) == 4, "they are under way", 20)
        made.process.kill()
        workers = {str(pid).encode() for pid in made.workers.values()}
        assert {call.result().split()[0] for call in calls} <= workers


def test_a_second_sigterm_ends_at_once(etcd, service):
    with family(service, etcd, 2, *FREE, "--grace", "60") as made:
        workers = list(made.workers.values())
        with (
            etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
            concurrent.futures.ThreadPoolExecutor(4) as threads,
        ):
            slow = channel.unary_unary("/echo/Slow")
            calls = [threads.submit(slow, b"40", timeout=60, wait_for_ready=True) for _ in range(4)]
            wait_until(lambda: len(made.said("sleeps")) == 4, "they are under way", 20)
            made.signal(signal.SIGTERM)
            wait_until(lambda: made.said("draining"), "they drain", 20)
            made.signal(signal.SIGTERM)
            # The calls and the grace period would last longer.
            wait_until(lambda: not made.process.alive, "the parent has ended", 20)
            assert not any(map(alive, workers))
            assert all(call.exception() is not None for call in calls)
        assert registered(etcd, service) == 0


def test_output_comes_line_by_line_with_the_workers_number(etcd, service):
    with (
        family(service, etcd, 2, *FREE) as made,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
    ):
        speak = channel.unary_unary("/echo/Speak")

        def both_said(line: str) -> bool:
            speak("one\ntwo 二".encode(), timeout=20, wait_for_ready=True)
            return {said.split(" | ")[0] for said in made.said(f"| {line}")} == {"worker 0", "worker 1"}

        for line in ("one", "two 二"):
            wait_until(lambda line=line: both_said(line), f"both have said {line}")


def test_calls_are_summed_over_all_workers(etcd, service):
    with (
        family(service, etcd, 2, *FREE) as made,
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
    ):
        who = channel.unary_unary("/echo/UnaryUnary")
        for _ in range(50):
            who(b"", timeout=20, wait_for_ready=True)

        def told(restarts: int) -> list[str]:
            made.signal(signal.SIGUSR1)
            what = f"2 workers serving, {restarts} restarts: 50 calls, 0 failed, 0 in flight"
            return made.said(what)

        wait_until(lambda: told(0), "the sum is right", 30, poll_s=0.3)
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/echo/Die")(b"", timeout=20)
        wait_until(lambda: len(made.served) == 3, "it is replaced", 60)
        wait_until(lambda: told(1), "what has ended counts", 30, poll_s=0.3)
