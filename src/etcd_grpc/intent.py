"""One instance that should stand in etcd, how far that is true, and the requests that make it so.

Every write is a transaction that compares the key's ``mod_revision`` with the one we know.  So a
request whose answer was lost can be repeated: if it did arrive, the second attempt finds our own value
and is content; and one that arrives late cannot bring a key back that was withdrawn meanwhile.
"""

from __future__ import annotations

from etcd_grpc.errors import EtcdGrpcError
from etcd_grpc.etcd import rpc_pb2 as rpc
from etcd_grpc.model import Instance
from etcd_grpc.ownership import Found

__all__ = ["Intent", "delete_request", "found_in", "put_request"]


class Intent:
    """One instance that should stand in etcd, and how far that is true.

    Attributes:
        instance, key, value: What should stand where.
        revision: ``mod_revision`` of the key as we know it; 0: it does not exist.
        wanted: Counts what was asked for ...
        placed: ... and this is (generation of the lease, ``wanted``) of what is in etcd.
        stood: Whether it has been in etcd.
        doubts: Counts how often what we knew of the key was called into question.
        lost: Whether it has to come (back) there, rather than to be changed in place.
        yielded: Another process holds the key; nothing is written until that one is gone.
        contest: The id of the foreign lease under contest; 0: none is.
        refusal: Why it cannot be registered at all.
        leaving: It is being withdrawn.
        watch: The handle of the watch of its key.
    """

    __slots__ = (
        "contest",
        "doubts",
        "instance",
        "key",
        "leaving",
        "lost",
        "placed",
        "refusal",
        "revision",
        "stood",
        "value",
        "wanted",
        "watch",
        "yielded",
    )

    def __init__(self, instance: Instance, key: bytes) -> None:
        self.instance = instance
        self.key = key
        self.value = b""
        self.revision = 0
        self.wanted = 0
        self.placed = (0, 0)
        self.stood = False
        self.doubts = 0
        self.lost = True
        self.yielded = False
        self.contest = 0
        self.refusal: EtcdGrpcError | None = None
        self.leaving = False
        self.watch: int | None = None

    def want(self, instance: Instance, value: bytes) -> None:
        """This is what should stand there from now on."""
        self.instance, self.value = instance, value
        self.wanted += 1

    def missing(self, generation: int) -> bool:
        """Whether it must be put under the lease of ``generation``."""
        return not (self.yielded or self.leaving or self.stands(generation))

    def stands(self, generation: int) -> bool:
        """Whether it is in etcd as wanted, under the lease of ``generation``."""
        return self.placed == (generation, self.wanted)

    def doubt(self) -> None:
        """It may not be in etcd any more: look, and put it again if so."""
        self.placed = (0, 0)
        self.doubts += 1

    def vacant(self) -> None:
        """The key is gone, whosever it was."""
        self.doubt()
        self.lost = True
        self.yielded = False
        self.contest = 0


def put_request(intent: Intent, lease_id: int) -> rpc.TxnRequest:
    """Put the key under the lease if it is as we know it, else read it."""
    put = rpc.PutRequest(key=intent.key, value=intent.value, lease=lease_id)
    return rpc.TxnRequest(
        compare=[
            rpc.Compare(
                target=rpc.Compare.MOD,
                result=rpc.Compare.EQUAL,
                key=intent.key,
                mod_revision=intent.revision,
            )
        ],
        success=[rpc.RequestOp(request_put=put)],
        failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=intent.key))],
    )


def delete_request(intent: Intent, lease_id: int) -> rpc.TxnRequest:
    """Delete the key if it is ours: another process may have taken it over."""
    ours = rpc.Compare(
        target=rpc.Compare.LEASE, result=rpc.Compare.EQUAL, key=intent.key, lease=lease_id
    )
    gone = rpc.DeleteRangeRequest(key=intent.key)
    return rpc.TxnRequest(compare=[ours], success=[rpc.RequestOp(request_delete_range=gone)])


def found_in(answer: rpc.TxnResponse) -> Found | None:
    """What stands at the key, by the answer to a ``put_request`` that did not put."""
    kvs = answer.responses[0].response_range.kvs
    return Found(kvs[0].value, kvs[0].lease, kvs[0].mod_revision) if kvs else None
