"""What can be done to a running cluster: its network, its history, its alarms, users and TLS.

On etcd 3.4, 3.5 and 3.6 alike: set ETCD_GRPC_ETCD_BIN to try another one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from tests.support.etcd import RawEtcd
from tests.support.waiting import wait_until

import etcd_grpc
from etcd_grpc.devcluster import Cluster, TlsFiles, User
from etcd_grpc.errors import AuthenticationError, ConfigurationError, EtcdError
from etcd_grpc.etcd import methods
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.etcd.methods import Method

LEADER = "etcd_server_has_leader"
RANGES = (
    'grpc_server_handled_total{grpc_code="OK",grpc_method="Range",'
    'grpc_service="etcdserverpb.KV",grpc_type="unary"}'
)


class Client:
    """Single attempts at one member, with a token or without."""

    def __init__(self, endpoint: str, timeout_s: float = 20.0) -> None:
        self.channel = grpc.insecure_channel(endpoint)
        self._timeout_s = timeout_s

    def call(self, method: Method[Any, Any], request: Any, token: str = "") -> Any:
        rpc_call = self.channel.unary_unary(method.path, method.serialize, method.deserialize)
        metadata = (("token", token),) if token else ()
        return rpc_call(request, timeout=self._timeout_s, metadata=metadata)

    def token(self, user: str, password: str) -> str:
        request = rpc.AuthenticateRequest(name=user, password=password)
        return str(self.call(methods.AUTHENTICATE, request).token)

    def get(self, key: str, token: str = "") -> Any:
        return self.call(methods.RANGE, rpc.RangeRequest(key=key.encode()), token)

    def put(self, key: str, token: str = "") -> None:
        self.call(methods.PUT, rpc.PutRequest(key=key.encode(), value=b"v"), token)

    def refusal(self, attempt: Any, *arguments: str) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            attempt(*arguments)
        return caught.value.code(), caught.value.details()


@pytest.fixture
def single() -> Iterator[Cluster]:
    with Cluster(1) as running:
        yield running


@pytest.fixture
def client(single: Cluster) -> Iterator[Client]:
    made = Client(single.endpoints[0])
    yield made
    made.channel.close()


# The members' network


@pytest.fixture
def divisible() -> Iterator[Cluster]:
    with Cluster(3, partitionable=True) as running:
        yield running


def has_leader(cluster: Cluster, index: int) -> bool:
    return cluster.metrics(index)[LEADER] == 1


def test_a_member_cut_off_from_its_peers_still_talks_to_clients(divisible: Cluster) -> None:
    old = divisible.leader()
    divisible.partition(old)
    new = divisible.leader()
    assert new != old
    divisible.wait_healthy()  # the two others
    wait_until(lambda: not has_leader(divisible, old), "the lonely one knows")
    with RawEtcd(divisible.endpoints[new]) as majority:
        majority.put("written/meanwhile", "1")
    lonely = Client(divisible.endpoints[old], timeout_s=2)
    code, details = lonely.refusal(lonely.get, "written/meanwhile")
    if code is grpc.StatusCode.UNKNOWN:  # etcd noticed the deadline before we did
        assert details == "context deadline exceeded"
    else:
        assert code in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}

    divisible.heal()
    wait_until(lambda: has_leader(divisible, old), "healed")
    divisible.wait_healthy()
    lonely.channel.close()
    healed = Client(divisible.endpoints[old])
    assert healed.get("written/meanwhile").kvs[0].value == b"1"
    healed.channel.close()


def test_a_watch_with_hasleader_ends_on_the_side_without_a_majority(divisible: Cluster) -> None:
    channel = grpc.insecure_channel(divisible.endpoints[1])
    watch = channel.stream_stream(
        methods.WATCH.path, methods.WATCH.serialize, methods.WATCH.deserialize
    )
    request = rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"k"))
    wait_until(lambda: has_leader(divisible, 1), "a leader")
    answers = watch(iter([request]), metadata=(("hasleader", "true"),), timeout=30)
    assert next(answers).created
    divisible.partition(1)
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert (caught.value.code(), "no leader" in caught.value.details()) == (
        grpc.StatusCode.UNAVAILABLE,
        True,
    )
    channel.close()


def test_a_partition_outlives_new_connections_and_can_be_moved(divisible: Cluster) -> None:
    divisible.partition(0, 1)
    wait_until(lambda: not has_leader(divisible, 2), "2 is alone")
    divisible.partition(0)
    wait_until(lambda: has_leader(divisible, 2) and not has_leader(divisible, 0), "0 is alone")
    divisible.kill(1)
    wait_until(lambda: not has_leader(divisible, 2), "all are alone")
    divisible.restart(1, keep_data=True)
    wait_until(lambda: has_leader(divisible, 2) and not has_leader(divisible, 0), "0 is alone again")
    divisible.heal()
    divisible.wait_healthy()


def test_what_cannot_be_parted_says_so(single: Cluster) -> None:
    single.heal()
    with pytest.raises(ConfigurationError, match="partitionable=True"):
        single.partition(0)
    with Cluster(2, partitionable=True) as two:
        for side in ((), (0, 1), (-1, 0)):
            with pytest.raises(ConfigurationError, match="not a part"):
                two.partition(*side)
        with pytest.raises(IndexError):
            two.partition(2)


def test_a_divisible_cluster_comes_back_on_its_data_and_takes_fresh_members(tmp_path: Path) -> None:
    with Cluster(3, data_dir=tmp_path, partitionable=True) as first:
        endpoints = first.endpoints
        first.restart(0)
    with Cluster(3, data_dir=tmp_path) as second:
        assert second.endpoints == endpoints
        second.leader()


def test_clients_can_be_cut_off_from_all_of_etcd(single: Cluster) -> None:
    with single.through_proxies() as proxies:
        client = Client(proxies.endpoints[0])
        client.put("k")
        proxies.cut()
        assert client.refusal(client.get, "k")[0] is grpc.StatusCode.UNAVAILABLE
        proxies.mend()
        with RawEtcd(proxies.endpoints[0]) as raw:
            assert set(raw.get("k")) == {"k"}
        client.channel.close()


def test_metrics_count_requests(single: Cluster, client: Client) -> None:
    before = single.metrics(0).get(RANGES, 0)
    for _ in range(3):
        client.get("k")
    assert single.metrics(0)[RANGES] == before + 3


# History and alarms


def test_a_watch_from_before_a_compaction_is_cancelled(single: Cluster, client: Client) -> None:
    for _ in range(3):
        client.put("k")
    revision = single.admin.compact()
    assert revision == client.get("k").header.revision
    assert single.admin.compact() == revision, "twice is fine"
    watch = client.channel.stream_stream(
        methods.WATCH.path, methods.WATCH.serialize, methods.WATCH.deserialize
    )
    create = rpc.WatchCreateRequest(key=b"k", start_revision=2)
    answers = watch(iter([rpc.WatchRequest(create_request=create)]), timeout=10)
    canceled = next(answer for answer in answers if answer.canceled)
    assert canceled.compact_revision == revision
    answers.cancel()


def test_without_space_etcd_reads_and_does_not_write(single: Cluster, client: Client) -> None:
    client.put("before")
    single.admin.alarm("NOSPACE")
    assert single.admin.alarms() == ["NOSPACE"]
    code, details = client.refusal(client.put, "after")
    assert (code, details) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "etcdserver: mvcc: database space exceeded",
    )
    assert client.get("before").kvs
    single.wait_healthy()
    single.admin.disarm()
    assert single.admin.alarms() == []
    client.put("after")


def test_an_operator_finds_a_member_that_can(divisible: Cluster) -> None:
    with RawEtcd(divisible.endpoints[0]) as raw:
        raw.put("k", "v")
    divisible.partition(0)
    assert divisible.admin.delete_prefix("k") == 1, "not put to the one that is cut off"
    divisible.heal()
    divisible.wait_healthy()
    divisible.kill(divisible.leader())
    assert divisible.admin.compact() > 1, "waits for a new leader"


def test_keys_can_be_deleted_by_prefix(single: Cluster, client: Client) -> None:
    for key in ("svc/1", "svc/2", "svd/3"):
        client.put(key)
    assert single.admin.delete_prefix("svc/") == 2
    assert client.get("svd/3").kvs
    assert single.admin.delete_prefix("") == 1


# Users


@pytest.fixture
def guarded(single: Cluster) -> Cluster:
    single.admin.enable_auth(User("app", "secret", "test/"), User("reader", "known", access="read"))
    return single


def test_users_may_do_what_their_roles_permit(guarded: Cluster, client: Client) -> None:
    app, reader = client.token("app", "secret"), client.token("reader", "known")
    client.put("test/k", app)
    assert client.get("test/k", reader).kvs
    denied = (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
    assert client.refusal(client.put, "other/k", app) == denied
    assert client.refusal(client.put, "test/k", reader) == denied
    assert client.refusal(client.put, "test/k")[0] is grpc.StatusCode.INVALID_ARGUMENT

    guarded.admin.grant_permission("app", "other/")
    client.put("other/k", app)
    guarded.admin.revoke_permission("app", "test/")
    assert client.refusal(client.put, "test/k", app) == denied
    client.put("other/k", app)
    guarded.admin.disable_auth()
    client.put("test/k")


def test_expired_tokens_are_refused_and_new_ones_given(guarded: Cluster, client: Client) -> None:
    app, reader = client.token("app", "secret"), client.token("reader", "known")
    client.put("test/k", app)
    guarded.admin.expire_tokens("app")
    invalid = (grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
    assert client.refusal(client.put, "test/k", app) == invalid
    assert client.get("test/k", reader).kvs, "others keep theirs"
    client.put("test/k", client.token("app", "secret"))
    with pytest.raises(ConfigurationError, match="stranger"):
        guarded.admin.expire_tokens("stranger")


def test_a_changed_password_ends_tokens_too(guarded: Cluster, client: Client) -> None:
    app = client.token("app", "secret")
    guarded.admin.change_password("app", "another")
    assert client.refusal(client.put, "test/k", app)[0] is grpc.StatusCode.UNAUTHENTICATED
    assert client.refusal(client.token, "app", "secret")[0] is grpc.StatusCode.INVALID_ARGUMENT
    client.put("test/k", client.token("app", "another"))


def test_the_cluster_itself_gets_in_whatever_happens_to_users(guarded: Cluster) -> None:
    guarded.leader()
    guarded.admin.change_password("root", "new")
    guarded.admin.expire_tokens("root")
    guarded.kill(0)
    guarded.restart(0)
    assert guarded.leader() == 0
    guarded.admin.compact()
    with pytest.raises(EtcdError, match="already exists"):
        guarded.admin.add_user(User("app", "secret"))


def test_tokens_expire_on_every_member_and_members_are_replaced_with_auth() -> None:
    with Cluster(3) as cluster:
        cluster.admin.enable_auth(User("app", "secret"))
        clients = [Client(endpoint) for endpoint in cluster.endpoints]
        token = clients[0].token("app", "secret")
        for client in clients:
            client.put("k", token)
        cluster.admin.expire_tokens("app")
        for client in clients:
            assert client.refusal(client.put, "k", token)[0] is grpc.StatusCode.UNAUTHENTICATED
            client.channel.close()
        cluster.restart(1)
        cluster.leader()


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> TlsFiles:
    folder = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("server", "client"):
        leaf = authority.issue_cert("127.0.0.1", "localhost")
        leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        leaf.private_key_pem.write_to_path(folder / f"{name}.key")
    return TlsFiles(
        ca=folder / "ca.pem",
        cert=folder / "server.pem",
        key=folder / "server.key",
        client_cert=folder / "client.pem",
        client_key=folder / "client.key",
    )


def test_a_cluster_serves_clients_over_mutual_tls(files: TlsFiles, tmp_path: Path) -> None:
    with Cluster(3, tls=files, partitionable=True) as cluster:
        assert all(endpoint.startswith("https://127.0.0.1:") for endpoint in cluster.endpoints)
        cluster.leader()
        cluster.restart(0)
        cluster.admin.compact()
        assert cluster.metrics(0)
        with cluster.through_proxies() as proxies:
            etcd = etcd_grpc.EtcdConfig.from_env(
                {**cluster.environment(), "ETCDCTL_ENDPOINTS": ",".join(proxies.endpoints)}
            )
            with etcd_grpc.register(
                "tls.Service", port=5000, host="127.0.0.1", etcd=etcd, timeout_s=20
            ):
                assert sum(proxy.accepted for proxy in proxies) >= 1


def test_an_expired_certificate_does_not_keep_the_cluster_from_starting(
    authority: trustme.CA, files: TlsFiles, tmp_path: Path
) -> None:
    from datetime import UTC, datetime, timedelta

    expired = authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1))
    expired.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    expired.private_key_pem.write_to_path(tmp_path / "server.key")
    tls = TlsFiles(ca=files.ca, cert=tmp_path / "server.pem", key=tmp_path / "server.key")
    with Cluster(1, tls=tls) as cluster:
        cluster.leader()
        assert "ETCDCTL_CERT" not in cluster.environment()
        with pytest.raises(etcd_grpc.EtcdError):
            etcd = etcd_grpc.EtcdConfig(cluster.endpoints, ca_cert=files.ca)
            etcd_grpc.register("tls.Service", port=5000, etcd=etcd, timeout_s=1)


def test_half_a_client_certificate_is_refused(files: TlsFiles) -> None:
    with pytest.raises(ConfigurationError, match="both"):
        TlsFiles(ca=files.ca, cert=files.cert, key=files.key, client_cert=files.cert)


def test_a_refusal_is_told_apart_from_silence(guarded: Cluster) -> None:
    access = guarded.admin._access
    access.login, access.token = ("app", "secret"), ""
    with pytest.raises(AuthenticationError, match="permission denied"):
        guarded.admin.compact()
    guarded.kill(0)
    began = time.monotonic()
    with pytest.raises(etcd_grpc.EtcdUnavailableError, match="no member runs"):
        guarded.admin.compact()
    assert time.monotonic() - began < 8  # where a member is only silent, it is asked for 10 s
