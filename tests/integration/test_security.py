"""Authentication and TLS between us and etcd, against real members."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.telemetry import events
from etcd_grpc.testing import Cluster, TlsFiles, User

PASSWORD = "correct-horse"


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """An etcd with authentication, whose tokens end after two seconds; "app" may use ``test.*``."""
    with Cluster(1, extra_args=["--auth-token-ttl", "2"]) as cluster:
        cluster.admin.enable_auth(User("app", PASSWORD, "test."))
        yield cluster.endpoints[0]


def config(endpoint: str, password: str = PASSWORD) -> etcd_grpc.EtcdConfig:
    return etcd_grpc.EtcdConfig((endpoint,), user="app", password=password)


def test_with_user_and_password_everything_works_beyond_the_tokens_end(guarded, service, echoes):
    etcd = config(guarded)
    with etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd) as channel:
        call = channel.unary_unary("/echo/UnaryUnary")
        with etcd_grpc.register(service, address=echoes[0].address, ttl_s=4, etcd=etcd, settle_s=0):
            assert call(b"x", timeout=20)
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
        etcd_grpc.register(service, port=5000, etcd=guarded, timeout_s=20)


def test_a_missing_permission_is_told_to_the_call_that_waits(guarded, service, caplog):
    with etcd_grpc.insecure_channel("etcd:///forbidden.Service", etcd=config(guarded)) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=5)
    assert "permission denied" in caught.value.details()
    assert PASSWORD not in caplog.text


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Path:
    """``ca.pem``, and ``NAME.pem`` with ``NAME.key`` for servers and clients, good and bad."""
    made = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(made / "ca.pem")
    trustme.CA().cert_pem.write_to_path(made / "other-ca.pem")
    for name, identity, end in (
        ("server", "127.0.0.1", None),
        ("client", "client", None),
        ("expired-server", "127.0.0.1", LONG_AGO),
        ("expired-client", "client", LONG_AGO),
        ("elsewhere", "10.9.9.9", None),
    ):
        leaf = authority.issue_cert(identity, not_after=end)
        leaf.cert_chain_pems[0].write_to_path(made / f"{name}.pem")
        leaf.private_key_pem.write_to_path(made / f"{name}.key")
    return made


def served_with(folder: Path, name: str, *, mutual: bool = False) -> Cluster:
    """An etcd that shows the certificate of this name."""
    files = [folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key"]
    return Cluster(1, tls=TlsFiles(*files, *(files[1:] if mutual else ())))


@pytest.fixture(scope="module")
def encrypted(folder: Path) -> Iterator[str]:
    """An etcd that wants TLS and a client certificate."""
    with served_with(folder, "server", mutual=True) as cluster:
        yield cluster.endpoints[0]


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
        assert channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)


@pytest.mark.parametrize(
    ("case", "hint"),
    [
        ("another authority", "ETCDCTL_CACERT"),
        ("no client certificate", "etcd refused our certificate"),
        ("plaintext", "want TLS"),
    ],
)
def test_what_tls_refuses_is_refused(encrypted, folder, service, case, hint):
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
    with pytest.raises(etcd_grpc.EtcdUnavailableError, match=service) as caught:
        etcd_grpc.register(service, port=5000, etcd=etcd, timeout_s=3)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("expired-server", "certificate has expired.*notAfter 2020-01-01 00:00 UTC"),
        ("elsewhere", "for another name.*it is for 10.9.9.9"),
    ],
)
def test_a_certificate_of_etcds_that_is_no_good_is_told_with_its_facts(folder, service, name, said):
    with served_with(folder, name) as cluster:
        etcd = etcd_grpc.EtcdConfig(cluster.endpoints, ca_cert=folder / "ca.pem")
        with pytest.raises(etcd_grpc.EtcdUnavailableError, match=said):
            etcd_grpc.register(service, port=5000, etcd=etcd, timeout_s=3)


def test_tls_to_an_etcd_without_it_says_so(folder, etcd, service):
    config = etcd_grpc.EtcdConfig((etcd,), ca_cert=folder / "ca.pem")
    with pytest.raises(etcd_grpc.EtcdUnavailableError, match="Does this member speak TLS"):
        etcd_grpc.register(service, port=5000, etcd=config, timeout_s=3)


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("expired-client.pem", "expired-client.key", "expired: notAfter is 2020-01-01 00:00 UTC"),
        ("client.pem", "server.key", "does not belong to the certificate"),
        ("client.key", "client.key", "cannot use the certificate"),
        ("client.pem", "missing.key", "missing.key"),
    ],
)
def test_a_certificate_of_ours_that_is_no_good_is_refused_before_anything_is_sent(
    folder, service, cert, key, said
):
    etcd = etcd_grpc.EtcdConfig(
        ("127.0.0.1:1",), ca_cert=folder / "ca.pem", cert=folder / cert, key=folder / key
    )
    with pytest.raises(etcd_grpc.ConfigurationError, match=said):
        etcd_grpc.register(service, port=5000, etcd=etcd)
    with pytest.raises(etcd_grpc.ConfigurationError, match=said):
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd)


def test_a_certificate_file_that_is_missing_is_named(service, tmp_path):
    missing = tmp_path / "ca.pem"
    etcd = etcd_grpc.EtcdConfig(("127.0.0.1:1",), ca_cert=missing)
    with pytest.raises(etcd_grpc.ConfigurationError, match=r"ca\.pem"):
        etcd_grpc.register(service, port=5000, etcd=etcd)
    with pytest.raises(etcd_grpc.ConfigurationError, match=r"ca\.pem"):
        etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=etcd)


def test_who_may_not_read_the_service_config_is_served_without_it(guarded, service, echoes):
    seen = []
    with etcd_grpc.listen(seen.append):
        with (
            etcd_grpc.register(service, address=echoes[0].address, etcd=config(guarded), settle_s=0),
            etcd_grpc.insecure_channel(f"etcd:///{service}", etcd=config(guarded)) as channel,
        ):
            assert channel.unary_unary("/echo/UnaryUnary")(b"x", timeout=20)

            def told() -> list[events.ServiceConfigForbidden]:
                return [e for e in seen if isinstance(e, events.ServiceConfigForbidden)]

            wait_until(told, "told")
    assert len(told()) == 1
    assert f"permit reading 'etcd-grpc/service-config/{service}'" in str(told()[0])
