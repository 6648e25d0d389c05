"""Where etcd is: the environment as ``etcdctl`` reads it, and contradictions refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trustme

from etcd_grpc.config import EtcdConfig, split_endpoints
from etcd_grpc.errors import ConfigurationError
from etcd_grpc.tls.material import Material

CA, CERT, KEY = Path("/tls/ca.pem"), Path("/tls/cert.pem"), Path("/tls/key.pem")


def test_nothing_set_means_the_local_member() -> None:
    config = EtcdConfig.from_env({})
    assert config == EtcdConfig()
    assert config.addresses == ("127.0.0.1:2379",)
    assert not config.tls


def test_every_variable_of_etcdctl_is_read() -> None:
    config = EtcdConfig.from_env(
        {
            "ETCDCTL_ENDPOINTS": "https://10.0.0.1:2379,https://10.0.0.2:2379",
            "ETCDCTL_CACERT": str(CA),
            "ETCDCTL_CERT": str(CERT),
            "ETCDCTL_KEY": str(KEY),
            "ETCDCTL_USER": "root",
            "ETCDCTL_PASSWORD": "hunter2",
        }
    )
    assert config == EtcdConfig(
        endpoints=("https://10.0.0.1:2379", "https://10.0.0.2:2379"),
        ca_cert=CA,
        cert=CERT,
        key=KEY,
        user="root",
        password="hunter2",
    )


def test_empty_variables_count_as_not_set() -> None:
    names = ("ENDPOINTS", "CACERT", "CERT", "KEY", "USER", "PASSWORD")
    assert EtcdConfig.from_env({f"ETCDCTL_{name}": "" for name in names}) == EtcdConfig()


@pytest.mark.parametrize(
    ("environment", "user", "password"),
    [
        ({"ETCDCTL_USER": "root"}, "root", ""),
        ({"ETCDCTL_USER": "root:hunter2"}, "root", "hunter2"),
        ({"ETCDCTL_USER": "root:hunter:2"}, "root", "hunter:2"),
        ({"ETCDCTL_USER": "root:"}, "root", ""),
        ({"ETCDCTL_USER": "root", "ETCDCTL_PASSWORD": "hunter2"}, "root", "hunter2"),
        ({"ETCDCTL_USER": "root", "ETCDCTL_PASSWORD": "a:b"}, "root", "a:b"),
        # etcdctl splits the user only when there is no password of its own (authCfgFromCmd).
        ({"ETCDCTL_USER": "svc:a", "ETCDCTL_PASSWORD": "hunter2"}, "svc:a", "hunter2"),
    ],
)
def test_user_and_password_are_split_as_etcdctl_splits_them(
    environment: dict[str, str], user: str, password: str
) -> None:
    config = EtcdConfig.from_env(environment)
    assert (config.user, config.password) == (user, password)


@pytest.mark.parametrize(
    ("listed", "endpoints"),
    [
        ("a:1", ("a:1",)),
        ("a:1,b:2", ("a:1", "b:2")),
        (" a:1 , b:2 ", ("a:1", "b:2")),
        ("a:1,,b:2,", ("a:1", "b:2")),
        ("http://a:1/,http://b:2/", ("http://a:1", "http://b:2")),
        (" , ", ()),
    ],
)
def test_endpoints_are_split_at_commas(listed: str, endpoints: tuple[str, ...]) -> None:
    assert split_endpoints(listed) == endpoints


@pytest.mark.parametrize(
    ("endpoints", "addresses", "tls"),
    [
        (("10.0.0.1:2379",), ("10.0.0.1:2379",), False),
        (("http://10.0.0.1:2379",), ("10.0.0.1:2379",), False),
        (("https://10.0.0.1:2379",), ("10.0.0.1:2379",), True),
        (("https://[2001:db8::1]:2379",), ("[2001:db8::1]:2379",), True),
        (("https://a:2379", "b:2379"), ("a:2379", "b:2379"), True),  # one https:// is all
        (("http://a:2379", "b:2379"), ("a:2379", "b:2379"), False),
    ],
)
def test_scheme_decides_about_tls_for_all_members(
    endpoints: tuple[str, ...], addresses: tuple[str, ...], tls: bool
) -> None:
    config = EtcdConfig(endpoints)
    assert config.addresses == addresses
    assert config.tls is tls


@pytest.mark.parametrize("settings", [{"ca_cert": CA}, {"cert": CERT, "key": KEY}])
def test_any_certificate_means_tls(settings: dict[str, Path]) -> None:
    assert EtcdConfig(("10.0.0.1:2379",), **settings).tls  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoints": ()}, "ETCDCTL_ENDPOINTS"),
        ({"endpoints": ("http://a:1", "https://b:1")}, "mix schemes"),
        ({"endpoints": ("ftp://a:1",)}, "unknown"),
        ({"endpoints": ("unix:///run/etcd",)}, "unknown"),
        ({"endpoints": ("http://a:1",), "ca_cert": CA}, "https://"),
        ({"endpoints": ("http://a:1", "b:1"), "cert": CERT, "key": KEY}, "https://"),
        ({"cert": CERT}, "ETCDCTL_KEY"),
        ({"key": KEY}, "ETCDCTL_CERT"),
        ({"password": "hunter2"}, "ETCDCTL_USER"),
        ({"endpoints": ("10.0.0.1",)}, "host:port"),
        ({"endpoints": ("10.0.0.1:0",)}, "1..65535"),
        ({"endpoints": ("http://10.0.0.1:2379/v3",)}, "host:port"),
        ({"endpoints": ("2001:db8::1:2379",)}, "brackets"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        EtcdConfig(**settings)
    assert "hunter2" not in str(caught.value)


def test_endpoints_of_nothing_but_commas_are_refused_not_replaced_by_the_default() -> None:
    with pytest.raises(ConfigurationError, match="no etcd endpoint"):
        EtcdConfig.from_env({"ETCDCTL_ENDPOINTS": " , "})


def test_password_is_not_in_repr() -> None:
    config = EtcdConfig(user="root", password="hunter2")
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config)
    assert "root" in repr(config)


@pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
def test_error_shows_no_password_that_stands_in_an_endpoint(scheme: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        EtcdConfig((f"{scheme}://root:hunter2@10.0.0.1:2379",))
    assert "hunter2" not in str(caught.value)


def test_certificates_are_what_stands_in_the_files(tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("client")
    authority.cert_pem.write_to_path(tmp_path / "ca")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    leaf.private_key_pem.write_to_path(tmp_path / "key")
    config = EtcdConfig(ca_cert=tmp_path / "ca", cert=tmp_path / "cert", key=tmp_path / "key")
    assert config.certificates() == Material(
        *((tmp_path / name).read_bytes() for name in ("ca", "cert", "key"))
    )
    assert EtcdConfig().certificates() == Material(None, None, None)


@pytest.mark.parametrize("names", [["ca_cert"], ["cert", "key"]])
def test_certificate_that_cannot_be_read_is_refused_and_named(names: list[str], tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    config = EtcdConfig(**dict.fromkeys(names, missing))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        config.certificates()


def test_equal_configurations_are_one_key() -> None:
    first, second = EtcdConfig.of("a:1,b:2"), EtcdConfig.of(["a:1", "b:2"])
    assert first == second
    assert len({first, second}) == 1


def test_of_keeps_a_configuration() -> None:
    config = EtcdConfig(("a:1",))
    assert EtcdConfig.of(config) is config


def test_of_none_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "10.0.0.9:2379")
    assert EtcdConfig.of(None).endpoints == ("10.0.0.9:2379",)


@pytest.mark.parametrize("etcd", ["a:1, b:2", ["a:1", "b:2"], ("a:1", "b:2")])
def test_of_endpoints_takes_the_rest_from_the_environment(
    etcd: str | Iterable[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "10.0.0.9:2379")
    monkeypatch.setenv("ETCDCTL_USER", "root:hunter2")
    config = EtcdConfig.of(etcd)
    assert config.endpoints == ("a:1", "b:2")
    assert (config.user, config.password) == ("root", "hunter2")


@pytest.mark.parametrize("etcd", ["", [], ()])
def test_of_no_endpoints_is_refused_not_replaced_by_the_environment(
    etcd: str | Iterable[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCDCTL_ENDPOINTS", "10.0.0.9:2379")
    with pytest.raises(ConfigurationError, match="no etcd endpoint"):
        EtcdConfig.of(etcd)
