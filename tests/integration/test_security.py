"""Authentication and TLS between us and etcd, against real members."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from tests.support.calls import free_port
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.devcluster import Cluster, find_etcd_binary
from etcd_grpc.devcluster.children import Children

PASSWORD = "correct-horse"


def etcdctl(endpoint: str, *arguments: str) -> str:
    program = find_etcd_binary().with_name("etcdctl")
    done = subprocess.run(
        [program, f"--endpoints={endpoint}", *arguments],
        env={"ETCDCTL_API": "3"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """An etcd with authentication, whose tokens end after two seconds; "app" may use ``test.*``."""
    with Cluster(1, extra_args=["--auth-token-ttl", "2"]) as cluster:
        endpoint = cluster.endpoints[0]
        etcdctl(endpoint, "user", "add", f"root:{PASSWORD}")
        etcdctl(endpoint, "user", "grant-role", "root", "root")
        etcdctl(endpoint, "role", "add", "app")
        etcdctl(endpoint, "role", "grant-permission", "app", "readwrite", "test.", "test/")
        etcdctl(endpoint, "user", "add", f"app:{PASSWORD}")
        etcdctl(endpoint, "user", "grant-role", "app", "app")
        etcdctl(endpoint, "auth", "enable")
        yield endpoint


def config(endpoint: str, password: str = PASSWORD) -> etcd_grpc.EtcdConfig:
    return etcd_grpc.EtcdConfig((endpoint,), user="app", password=password)


def test_with_user_and_password_everything_works_beyond_the_tokens_end(guarded, service, echoes):
    etcd = config(guarded)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        with etcd_grpc.register(service, address=echoes[0].address, ttl_s=3, etcd=etcd, settle_s=0):
            assert call(b"x", timeout=5)
            time.sleep(5)  # the point: longer than a token, and than the lease without a keepalive
            with etcd_grpc.register(service, address=echoes[1].address, etcd=etcd, settle_s=0):
                both = {echoes[0].address, echoes[1].address}
                wait_until(
                    lambda: {call(b"x", timeout=5).split()[0].decode() for _ in range(4)} == both,
                    "both",
                )


def test_a_wrong_password_is_told_and_not_shown(guarded, service):
    with pytest.raises(etcd_grpc.AuthenticationError) as caught:
        etcd_grpc.register(service, port=5000, etcd=config(guarded, "wrong-horse"), timeout_s=10)
    assert "ETCDCTL_PASSWORD" in str(caught.value)
    assert "wrong-horse" not in str(caught.value)


def test_no_credentials_are_never_enough(guarded, service):
    with pytest.raises(etcd_grpc.AuthenticationError):
        etcd_grpc.register(service, port=5000, etcd=guarded, timeout_s=3)


def test_a_missing_permission_is_told_to_the_call_that_waits(guarded, service, caplog):
    with etcd_grpc.insecure_channel("etcd:///forbidden.Service", etcd=config(guarded)) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=1.5)
    assert "permission denied" in caught.value.details()
    assert PASSWORD not in caplog.text


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Path:
    """``ca.pem``, and ``NAME.pem`` with ``NAME.key`` for a server and a client."""
    made = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(made / "ca.pem")
    trustme.CA().cert_pem.write_to_path(made / "other-ca.pem")
    for name in ("server", "client"):
        leaf = authority.issue_cert("127.0.0.1", "localhost")
        leaf.cert_chain_pems[0].write_to_path(made / f"{name}.pem")
        leaf.private_key_pem.write_to_path(made / f"{name}.key")
    return made


@pytest.fixture(scope="module")
def encrypted(folder: Path) -> Iterator[str]:
    """An etcd that wants TLS and a client certificate."""
    client, peer = (free_port() for _ in range(2))
    with Children("etcd with TLS") as children:
        data = children.directory("etcd-grpc-tls-")
        process = children.spawn(
            [
                find_etcd_binary(),
                f"--data-dir={data}",
                f"--listen-client-urls=https://127.0.0.1:{client}",
                f"--advertise-client-urls=https://127.0.0.1:{client}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
                f"--cert-file={folder}/server.pem",
                f"--key-file={folder}/server.key",
                f"--trusted-ca-file={folder}/ca.pem",
                "--client-cert-auth",
            ]
        )
        yield f"https://127.0.0.1:{client}"
        assert process.poll() is None, "etcd has died"


def test_mutual_tls_works(encrypted, folder, service, echoes):
    etcd = etcd_grpc.EtcdConfig(
        (encrypted,),
        ca_cert=folder / "ca.pem",
        cert=folder / "client.pem",
        key=folder / "client.key",
    )
    with (
        etcd_grpc.register(service, address=echoes[0].address, etcd=etcd, settle_s=0, timeout_s=15),
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel,
    ):
        assert channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=5)


@pytest.mark.parametrize("case", ["another authority", "no client certificate", "plaintext"])
def test_what_tls_refuses_is_refused(encrypted, folder, service, case):
    match case:
        case "another authority":
            etcd = etcd_grpc.EtcdConfig(
                (encrypted,),
                ca_cert=folder / "other-ca.pem",
                cert=folder / "client.pem",
                key=folder / "client.key",
            )
        case "no client certificate":
            etcd = etcd_grpc.EtcdConfig((encrypted,), ca_cert=folder / "ca.pem")
        case "plaintext":
            etcd = etcd_grpc.EtcdConfig((encrypted.removeprefix("https://"),))
    with pytest.raises(etcd_grpc.EtcdUnavailableError, match=service):
        etcd_grpc.register(service, port=5000, etcd=etcd, timeout_s=1.5)


def test_a_certificate_file_that_is_missing_is_named(service, tmp_path):
    missing = tmp_path / "ca.pem"
    etcd = etcd_grpc.EtcdConfig(("127.0.0.1:1",), ca_cert=missing)
    with pytest.raises(etcd_grpc.ConfigurationError, match=r"ca\.pem"):
        etcd_grpc.register(service, port=5000, etcd=etcd)
    with pytest.raises(etcd_grpc.ConfigurationError, match=r"ca\.pem"):
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd)
