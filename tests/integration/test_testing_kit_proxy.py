"""The breakable proxy, between plain sockets: each fault as both parties see it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.waiting import wait_until

from etcd_grpc.devcluster.proxies import Proxies
from etcd_grpc.devcluster.proxy import Proxy
from etcd_grpc.errors import ConfigurationError

PATIENCE_S = 20.0
SILENCE_S = 0.3


@dataclass
class Pair:
    """The two ends of one proxied connection."""

    client: socket.socket
    server: socket.socket


class Stage:
    """A listening server, a proxy in front of it, and connections through it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE_S)
        self.target = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.proxy = Proxy(self.target)
        self.sockets: list[socket.socket] = []

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.proxy.port), timeout=PATIENCE_S)
        self.sockets.append(client)
        return client

    def accept(self) -> socket.socket:
        server, _ = self.listener.accept()
        server.settimeout(PATIENCE_S)
        self.sockets.append(server)
        return server

    def pair(self) -> Pair:
        return Pair(self.connect(), self.accept())

    def close(self) -> None:
        self.proxy.close()
        for sock in [self.listener, *self.sockets]:
            sock.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    with made.proxy:
        yield made
    made.close()


def is_silent(sock: socket.socket) -> bool:
    """Nothing comes: no byte, no end, no reset."""
    sock.settimeout(SILENCE_S)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE_S)
    return False


def received(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (chunk := sock.recv(length - len(data))):
        data += chunk
    return data


def assert_forwards(pair: Pair) -> None:
    pair.client.sendall(b"there")
    assert received(pair.server, 5) == b"there"
    pair.server.sendall(b"back")
    assert received(pair.client, 4) == b"back"


def assert_reset(sock: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


# Forwarding


def test_bytes_go_both_ways_and_connections_are_counted(stage: Stage) -> None:
    pairs = [stage.pair() for _ in range(3)]
    for pair in pairs:
        assert_forwards(pair)
    assert (stage.proxy.accepted, stage.proxy.open_connections) == (3, 3)
    pairs[0].client.close()
    assert pairs[0].server.recv(1) == b""
    wait_until(lambda: stage.proxy.open_connections == 2, "the closed one is not counted")
    assert stage.proxy.accepted == 3


def test_one_direction_may_end_before_the_other(stage: Stage) -> None:
    pair = stage.pair()
    pair.client.sendall(b"the whole question")
    pair.client.shutdown(socket.SHUT_WR)
    assert received(pair.server, 100) == b"the whole question"
    pair.server.sendall(b"the answer")
    pair.server.close()
    assert received(pair.client, 100) == b"the answer"


def test_a_reset_is_passed_on(stage: Stage) -> None:
    pair = stage.pair()
    assert_forwards(pair)
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.server.close()
    assert_reset(pair.client)


def test_a_sender_waits_for_a_slow_receiver_and_nothing_is_lost(stage: Stage) -> None:
    pair = stage.pair()
    sent = os.urandom(1 << 20) * 32
    sender = threading.Thread(target=pair.client.sendall, args=(sent,))
    pair.client.settimeout(30)
    sender.start()
    sender.join(SILENCE_S)
    assert sender.is_alive(), "32 MiB did not fit into what nobody reads"
    assert received(pair.server, len(sent)) == sent
    sender.join()


def test_a_target_where_nobody_listens_resets_the_client(stage: Stage) -> None:
    stage.listener.close()
    with pytest.raises(ConnectionResetError):  # by connect itself, if it is that fast
        stage.connect().recv(1)


def test_schemes_are_kept_and_what_is_no_address_is_refused() -> None:
    with Proxy("https://127.0.0.1:1") as proxy:
        assert proxy.address == f"https://127.0.0.1:{proxy.port}"
    for wrong in ("localhost", "127.0.0.1:", "127.0.0.1:http:"):
        with pytest.raises(ConfigurationError, match="use host:port"):
            Proxy(wrong)


# Faults


def test_cut_resets_what_is_open_and_refuses_what_is_new(stage: Stage) -> None:
    pair = stage.pair()
    assert_forwards(pair)
    stage.proxy.cut()
    assert_reset(pair.client)
    assert_reset(pair.server)
    with pytest.raises(ConnectionRefusedError):
        stage.connect()
    stage.proxy.mend()
    assert_forwards(stage.pair())


def test_refuse_leaves_what_is_open(stage: Stage) -> None:
    pair = stage.pair()
    stage.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        stage.connect()
    assert_forwards(pair)
    stage.proxy.mend()
    assert_forwards(stage.pair())


def test_a_refusing_proxy_keeps_its_port(stage: Stage) -> None:
    stage.proxy.refuse()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", stage.proxy.port))


def test_stall_is_silent_for_old_and_new_and_delivers_after_the_mend(stage: Stage) -> None:
    old = stage.pair()
    stage.proxy.stall()
    new = stage.connect()
    for sock in (old.client, old.server, new):
        sock.sendall(b"late")
    assert all(map(is_silent, (old.client, old.server, new)))
    assert stage.proxy.open_connections == 2
    stage.proxy.mend()
    assert received(old.server, 4) == received(old.client, 4) == b"late"
    assert received(stage.accept(), 4) == b"late"


def test_stall_notices_clients_that_give_up(stage: Stage) -> None:
    pair = stage.pair()
    stage.proxy.stall()
    pair.client.close()
    wait_until(lambda: stage.proxy.open_connections == 0, "the client's end is noticed")
    assert is_silent(pair.server)
    stage.proxy.mend()
    assert pair.server.recv(1) == b""


def test_stall_can_single_out_connections(stage: Stage) -> None:
    chosen, spared = stage.pair(), stage.pair()
    port = chosen.client.getsockname()[1]
    stage.proxy.stall(lambda candidate: candidate == port)
    chosen.client.sendall(b"held")
    assert is_silent(chosen.server)
    assert_forwards(spared)
    assert_forwards(stage.pair())


def test_half_open_is_gone_for_the_server_and_silent_for_the_client(stage: Stage) -> None:
    pair = stage.pair()
    assert_forwards(pair)
    stage.proxy.half_open()
    assert_reset(pair.server)
    pair.client.sendall(b"into the void")
    assert is_silent(pair.client)
    assert stage.proxy.open_connections == 1
    with pytest.raises(ConnectionRefusedError):
        stage.connect()

    stage.proxy.mend()
    assert is_silent(pair.client)
    pair.client.sendall(b"anybody?")
    assert_reset(pair.client)
    assert_forwards(stage.pair())


def test_half_open_connections_that_clients_close_are_counted_no_more(stage: Stage) -> None:
    pair = stage.pair()
    stage.proxy.half_open()
    pair.client.close()
    wait_until(lambda: stage.proxy.open_connections == 0, "the client's end is noticed")


def test_delay_holds_every_byte_back_without_taking_throughput_away(stage: Stage) -> None:
    pair = stage.pair()
    stage.proxy.delay(SILENCE_S)
    began = time.monotonic()
    sender = threading.Thread(target=lambda: [pair.client.sendall(b"x") for _ in range(1000)])
    sender.start()
    assert received(pair.server, 1) == b"x"
    assert time.monotonic() - began >= SILENCE_S
    assert received(pair.server, 999) == b"x" * 999
    assert time.monotonic() - began < 100 * SILENCE_S, "not one after the other"
    sender.join()
    began = time.monotonic()
    pair.server.sendall(b"y")
    assert received(pair.client, 1) == b"y"
    assert time.monotonic() - began >= SILENCE_S
    stage.proxy.mend()
    assert_forwards(pair)


def test_connections_can_be_reset_while_new_ones_are_accepted(stage: Stage) -> None:
    pairs = [stage.pair() for _ in range(2)]
    assert stage.proxy.reset_connections() == 2
    for pair in pairs:
        assert_reset(pair.client)
        assert_reset(pair.server)
    assert_forwards(stage.pair())


def test_new_connections_can_be_redirected(stage: Stage) -> None:
    pair = stage.pair()
    with socket.create_server(("127.0.0.1", 0)) as other:
        stage.proxy.redirect(f"127.0.0.1:{other.getsockname()[1]}")
        assert_forwards(pair)
        client = stage.connect()
        server, _ = other.accept()
        stage.sockets.append(server)
        assert_forwards(Pair(client, server))
    with pytest.raises(ConfigurationError, match="use host:port"):
        stage.proxy.redirect("nowhere")


def test_a_stalled_proxy_can_be_cut_and_a_cut_one_stalled(stage: Stage) -> None:
    pair = stage.pair()
    stage.proxy.stall()
    stage.proxy.cut()
    assert_reset(pair.client)
    stage.proxy.mend()
    assert_forwards(stage.pair())


def test_without_descriptors_it_waits_and_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = socket.socket.accept
    failures = iter([OSError(errno.EMFILE, "Too many open files")])

    def accept(listener: socket.socket) -> tuple[socket.socket, object]:
        if threading.current_thread().name == "etcd-grpc-proxy" and (error := next(failures, None)):
            raise error
        return real(listener)

    monkeypatch.setattr(socket.socket, "accept", accept)
    assert_forwards(stage.pair())
    assert "cannot accept a connection: [Errno 24]" in caplog.text


# The end


def test_after_the_with_block_nothing_is_left() -> None:
    def descriptors() -> Counter[str]:
        """How often each file or socket is open: others may be closed meanwhile, by earlier tests."""
        found: Counter[str] = Counter()
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # that of the folder itself
                found[str(descriptor.readlink())] += 1
        return found

    def threads() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name == "etcd-grpc-proxy"]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = descriptors()
        with Proxy(f"127.0.0.1:{listener.getsockname()[1]}") as proxy:
            assert threads() == ["etcd-grpc-proxy"]
            clients = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(5)]
            proxy.stall()
            clients += [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(5)]
            proxy.half_open()
        proxy.close()
        for client in clients:
            client.close()
        assert not descriptors() - before
        assert threads() == []
    with pytest.raises(RuntimeError, match="does not run"):
        proxy.cut()


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=str(port)), Proxy("127.0.0.1:1", port=port):
            pass


def test_several_proxies_are_broken_together_and_one_by_one(stage: Stage) -> None:
    with Proxies([stage.target, stage.target]) as proxies:
        assert len(proxies) == 2
        assert proxies.endpoints == tuple(proxy.address for proxy in proxies)

        def connect(index: int) -> socket.socket:
            client = socket.create_connection(("127.0.0.1", proxies[index].port), PATIENCE_S)
            stage.sockets.append(client)
            return client

        proxies[1].refuse()
        assert_forwards(Pair(connect(0), stage.accept()))
        with pytest.raises(ConnectionRefusedError):
            connect(1)
        proxies.mend()
        client = connect(1)
        proxies.cut()
        assert_reset(client)
