"""What an operator does to a running etcd with etcdctl, for tests: compaction, alarms, users.

Everything is put to one member after another, until one that can has done it: less those that are cut
off, and for 10 s, in which a cluster that lost its leader finds another.
"""

from __future__ import annotations

import base64
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import msgspec

from etcd_grpc.errors import ConfigurationError, EtcdError, EtcdUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from etcd_grpc.devcluster.door import Access, Door

__all__ = ["Admin", "Alarm", "Permission", "User"]

Alarm: TypeAlias = Literal["NOSPACE", "CORRUPT"]
Permission: TypeAlias = Literal["read", "write", "readwrite"]

_T = TypeVar("_T")
_TIMEOUT_S = 10.0  # etcd itself gives up after 5 s and two election timeouts
_CATCH_UP_S = 2.0
_POLL_S = 0.05
_ANY_KEY = {"key": "AA==", "count_only": True}  # a zero byte
_COMPACTED_ALREADY = "has been compacted"


class _Header(msgspec.Struct, frozen=True):
    revision: int = 0


class _Answer(msgspec.Struct, frozen=True):
    header: _Header = _Header()


class _Deleted(msgspec.Struct, frozen=True):
    deleted: int = 0


class _MemberAlarm(msgspec.Struct, frozen=True):
    alarm: str = "NONE"
    member_id: int = msgspec.field(name="memberID", default=0)


class _Alarms(msgspec.Struct, frozen=True):
    alarms: list[_MemberAlarm] = []


class _Member(msgspec.Struct, frozen=True):
    member_id: int


class _Status(msgspec.Struct, frozen=True):
    header: _Member


@dataclass(frozen=True, slots=True)
class User:
    """A user for :meth:`Admin.enable_auth`, with a role of the same name.

    The role permits ``access`` to every key that begins with ``prefix``; "" is every key.
    """

    name: str
    password: str = field(repr=False)
    prefix: str = ""
    access: Permission = "readwrite"


class Admin:
    """Operates the cluster whose answering members ``doors`` tells and which ``access`` opens.

    Every method raises ``EtcdUnavailableError`` if no member could do it, and ``EtcdError`` if etcd
    refuses.
    """

    def __init__(self, doors: Callable[[], Sequence[Door]], access: Access) -> None:
        self._doors = doors
        self._access = access
        self._passwords: dict[str, str] = {}

    def compact(self) -> int:
        """Forget every revision before the present one, on the disk too; returns that revision.

        A watch that asks for an earlier one is cancelled with ``compact_revision``.
        """
        revision = self._call("/v3/kv/range", _ANY_KEY, _Answer).header.revision
        try:
            self._tell("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        except EtcdError as error:
            if _COMPACTED_ALREADY not in str(error):
                raise
        return revision

    def delete_prefix(self, prefix: str) -> int:
        """Delete all keys that begin with ``prefix``, as a slip of the hand; returns how many."""
        return self._call("/v3/kv/deleterange", _keys(prefix), _Deleted).deleted

    def alarm(self, kind: Alarm = "NOSPACE") -> None:
        """Raise an alarm: with NOSPACE etcd refuses what writes, and serves reads and watches.

        With NOSPACE members go on calling themselves healthy for the purposes of this cluster.
        """
        door = self._answering()
        member = door.post("/v3/maintenance/status", {}, _Status, _TIMEOUT_S).header.member_id
        self._alarm("ACTIVATE", kind, member)

    def disarm(self) -> None:
        """Lift every alarm."""
        for raised in self._call("/v3/maintenance/alarm", {"action": "GET"}, _Alarms).alarms:
            self._alarm("DEACTIVATE", raised.alarm, raised.member_id)

    def alarms(self) -> list[str]:
        """The kinds of the alarms in force, one for each member that raised one."""
        answer = self._call("/v3/maintenance/alarm", {"action": "GET"}, _Alarms)
        return [raised.alarm for raised in answer.alarms]

    def enable_auth(self, *users: User, root_password: str = "root-of-a-test") -> None:  # noqa: S107
        """Make etcd ask everybody for a user and a password; the cluster itself comes as root."""
        self._add_user("root", root_password)
        self._change_auth("/v3/auth/user/grant", {"user": "root", "role": "root"})
        for user in users:
            self.add_user(user)
        self._access.login = ("root", root_password)
        self._change_auth("/v3/auth/enable", {})

    def disable_auth(self) -> None:
        """Let everybody in again.  Users stay, and are there at the next :meth:`enable_auth`."""
        self._tell("/v3/auth/disable", {})
        self._access.login, self._access.token = None, ""
        self._catch_up()

    def add_user(self, user: User) -> None:
        """Add a user and its role."""
        self._add_user(user.name, user.password)
        self._change_auth("/v3/auth/role/add", {"name": user.name})
        self._change_auth("/v3/auth/user/grant", {"user": user.name, "role": user.name})
        self.grant_permission(user.name, user.prefix, user.access)

    def change_password(self, user: str, password: str) -> None:
        """Give a user another password.  Its tokens become invalid at once, on every member."""
        self._passwords[user] = password
        if self._access.login is not None and user == self._access.login[0]:
            self._access.login = (user, password)
        self._change_auth("/v3/auth/user/changepw", {"name": user, "password": password})

    def expire_tokens(self, user: str) -> None:
        """Make the tokens that this user holds invalid, as their end (``--auth-token-ttl``) would.

        It sets the user's password once more, upon which etcd forgets the user's tokens: at once,
        and on every member.  Watches that run go on: etcd checks a token when a watch is created.

        Raises:
            ConfigurationError: The user was not added here, so that its password is not known.
        """
        if user not in self._passwords:
            raise ConfigurationError(f"{user!r} was not added by add_user or enable_auth")
        self.change_password(user, self._passwords[user])

    def grant_permission(self, user: str, prefix: str = "", access: Permission = "readwrite") -> None:
        """Permit a user's role ``access`` to the keys that begin with ``prefix``."""
        permission = {"permType": access.upper(), **_keys(prefix)}
        self._change_auth("/v3/auth/role/grant", {"name": user, "perm": permission})

    def revoke_permission(self, user: str, prefix: str = "") -> None:
        """Take from a user's role what was granted for exactly this prefix."""
        self._change_auth("/v3/auth/role/revoke", {"role": user, **_keys(prefix)})

    def _add_user(self, name: str, password: str) -> None:
        self._change_auth("/v3/auth/user/add", {"name": name, "password": password})
        self._passwords[name] = password

    def _alarm(self, action: str, kind: str, member: int) -> None:
        body = {"action": action, "alarm": kind, "memberID": str(member)}
        self._tell("/v3/maintenance/alarm", body)

    def _answering(self) -> Door:
        doors = self._doors()
        if not doors:
            raise EtcdUnavailableError("no member runs")
        return doors[0]

    def _change_auth(self, path: str, body: Mapping[str, object]) -> None:
        self._tell(path, body)
        self._catch_up()

    def _catch_up(self) -> None:
        """Return when every member that can has applied what was decided: a read waits for that.

        A member that has not yet refuses an old token for another reason ("auth store is old").
        """
        for door in self._doors():
            # One that is cut off cannot have it, and will when it is back.
            with contextlib.suppress(EtcdUnavailableError):
                door.post("/v3/kv/range", _ANY_KEY, _Answer, _CATCH_UP_S)

    def _tell(self, path: str, body: Mapping[str, object]) -> None:
        self._call(path, body, _Answer)

    def _call(self, path: str, body: Mapping[str, object], answer: type[_T]) -> _T:
        deadline = time.monotonic() + _TIMEOUT_S
        problem: EtcdUnavailableError | None = None
        while doors := self._doors():
            for door in doors:
                try:
                    return door.post(path, body, answer, _TIMEOUT_S)
                except EtcdUnavailableError as error:
                    problem = error
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)  # a leader is being elected
        raise problem or EtcdUnavailableError("no member runs")


def _encoded(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")


def _keys(prefix: str) -> dict[str, str]:
    """``key`` and ``range_end`` of the keys that begin with ``prefix``, for the gateway."""
    start = prefix.encode()
    if not start:
        return {"key": _encoded(b"\0"), "range_end": _encoded(b"\0")}
    # No UTF-8 text ends in 0xff, so its last byte can be counted up.
    return {"key": _encoded(start), "range_end": _encoded(start[:-1] + bytes([start[-1] + 1]))}
