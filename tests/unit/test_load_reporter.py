"""What a process says of its load: rates over a sliding window, made rarely, sent as they are."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.support.balancing import Clock

from etcd_grpc.errors import ConfigurationError
from etcd_grpc.load_report import BINARY_HEADER, TEXT_HEADER, decode_text
from etcd_grpc.server.cores import usable_cores
from etcd_grpc.server.load_meter import LoadMeter
from etcd_grpc.server.load_reporter import LoadReporter


class Machine:
    """A clock, the CPU time spent, and a reporter that believes them."""

    def __init__(self, cores: float = 1.0) -> None:
        self.clock = Clock(0.0)
        self.cpu_s = 0.0
        self.reporter = LoadReporter(cores=cores, clock=self.clock, cpu=lambda: self.cpu_s)

    def run(self, seconds: float, *, qps: float, busy: float, failed: float = 0.0) -> None:
        """Calls one after another, of which a share fails, keeping the CPU busy to a share."""
        for number in range(round(seconds * qps)):
            self.reporter.begin()
            self.clock.now += 1 / qps
            self.cpu_s += busy / qps
            self.reporter.end(failed=number < failed * seconds * qps)


def test_rates_are_those_of_the_window() -> None:
    machine = Machine()
    machine.run(20, qps=100, busy=0.5)
    report = machine.reporter.report
    assert report.rps_fractional == pytest.approx(100, rel=0.02)
    assert report.cpu_utilization == pytest.approx(0.5, rel=0.02)
    assert report.eps == 0
    machine.run(6, qps=10, busy=0.1)
    assert machine.reporter.report.rps_fractional == pytest.approx(10, rel=0.05)
    assert machine.reporter.report.cpu_utilization == pytest.approx(0.1, rel=0.05)


def test_failures_are_told_apart() -> None:
    machine = Machine()
    machine.run(4, qps=100, busy=0.5, failed=0.25)
    assert machine.reporter.report.eps == pytest.approx(25, rel=0.1)


def test_the_share_is_of_the_cores_that_can_be_used() -> None:
    machine = Machine(cores=0.5)
    machine.run(5, qps=100, busy=0.4)
    assert machine.reporter.report.cpu_utilization == pytest.approx(0.8, rel=0.02)


def test_after_a_pause_rates_are_of_the_new_time() -> None:
    machine = Machine()
    machine.run(10, qps=100, busy=0.5)
    machine.clock.now += 600
    machine.run(0.01, qps=100, busy=0.5)
    assert machine.reporter.report.rps_fractional < 1  # in all that time
    machine.run(0.5, qps=100, busy=0.5)
    assert machine.reporter.report.rps_fractional == pytest.approx(100, rel=0.1)


def test_a_report_is_made_four_times_a_second_at_most() -> None:
    machine = Machine()
    seen = []
    for _ in range(1000):
        machine.run(0.001, qps=1000, busy=0.5)
        seen.append(machine.reporter.begin())
        machine.reporter.end(failed=False)
    assert 3 <= len({id(headers) for headers in seen}) <= 5


def test_nothing_is_reported_before_there_is_something_to_report() -> None:
    machine = Machine()
    assert machine.reporter.begin() == ()
    assert machine.reporter.end(failed=False) == ()


def test_the_headers_hold_the_report_in_both_forms() -> None:
    machine = Machine()
    machine.run(1, qps=100, busy=0.5)
    headers = dict(machine.reporter.end(failed=False))
    assert set(headers) == {BINARY_HEADER, TEXT_HEADER}
    text = headers[TEXT_HEADER]
    assert isinstance(text, str)
    read = decode_text(text)
    assert read is not None
    assert read.cpu_utilization == pytest.approx(machine.reporter.report.cpu_utilization, rel=1e-5)


def test_what_the_application_says_is_reported_until_it_takes_it_back() -> None:
    machine = Machine()
    reporter = machine.reporter
    reporter.set(application_utilization=0.7, named={"queue": 3, "users": 9})
    reporter.set(mem_utilization=0.2, named={"users": None})
    machine.run(1, qps=100, busy=0.5)
    report = reporter.report
    assert (report.application_utilization, report.mem_utilization) == (0.7, 0.2)
    assert report.named_metrics == {"queue": 3, "in_flight": 0}
    reporter.set(application_utilization=0)
    machine.run(1, qps=100, busy=0.5)
    assert reporter.report.application_utilization == 0


def test_the_lag_of_the_event_loop_is_reported() -> None:
    machine = Machine()
    machine.reporter.lag = lambda: 0.125
    machine.run(1, qps=100, busy=0.5)
    assert machine.reporter.report.named_metrics["loop_lag_s"] == 0.125


def test_what_cannot_be_sent_is_refused_and_changes_nothing() -> None:
    machine = Machine()
    machine.reporter.set(named={"queue": 3})
    for wrong in ({"a=b": 1.0}, {"a": -1.0}, {str(number): 1.0 for number in range(14)}):
        with pytest.raises(ConfigurationError):
            machine.reporter.set(named=wrong)
    machine.run(1, qps=100, busy=0.5)
    assert machine.reporter.report.named_metrics == {"queue": 3, "in_flight": 0}


@pytest.mark.parametrize("wrong", ["cores", "window_s", "every_s"])
def test_settings_that_make_no_sense_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=wrong):
        LoadReporter(**{wrong: 0.0})  # type: ignore[arg-type]


def test_no_call_is_lost_from_the_counts_when_many_threads_count() -> None:
    reporter = LoadReporter(every_s=0.001)

    def work() -> None:
        for number in range(2000):
            reporter.begin()
            reporter.end(failed=number % 2 == 0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reporter.counts == (16_000, 8_000, 0)


def test_counts_go_up_and_in_flight_comes_back() -> None:
    meter = LoadMeter(1.0, 5.0, 0.0, 0.0)
    meter.begin()
    meter.begin()
    meter.end(failed=True)
    assert meter.counts == (1, 1, 1)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "max 100000\n"}, 1.0),
        ({"cpu.max": "400000 100000\n"}, 1.0),
        ({"cpu.max": "nonsense"}, 1.0),
        ({"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000"}, 0.25),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 1.0),
        ({}, 1.0),
    ],
)
def test_a_container_may_leave_less_than_a_core(
    tmp_path: Path, files: dict[str, str], cores: float
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert usable_cores(tmp_path) == cores
