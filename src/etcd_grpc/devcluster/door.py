"""How a local cluster comes to its members: HTTP, with TLS and a token where they want it.

etcd answers every method of its API over HTTP and JSON too.  That is all the cluster uses, so that it
does not need the rest of this package, which is tested against it.  ``http.client`` and not
``urllib.request``: it never looks for a proxy.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from etcd_grpc.errors import AuthenticationError, EtcdError, EtcdUnavailableError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

__all__ = ["Access", "Door"]

_T = TypeVar("_T")
_UNAVAILABLE = frozenset({408, 503, 504})  # cancelled, no leader, timed out
_SERVERS_DEADLINE = "context deadline exceeded"  # comes as 500
_NO_TOKEN = frozenset({400, 401, 403})  # "user name is empty", "invalid auth token", "denied"


class _Token(msgspec.Struct, frozen=True):
    token: str


@dataclass(slots=True, eq=False)
class Access:
    """What opens the doors of one cluster.

    ``tls`` is ``None`` for plaintext.  ``login`` is name and password, as soon as etcd wants them.
    """

    tls: ssl.SSLContext | None = None
    login: tuple[str, str] | None = None
    token: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    """One member's address, ``host:port``, and what opens it."""

    address: str
    access: Access

    def get(self, path: str, timeout_s: float) -> str:
        """The text at ``path``.

        Raises:
            EtcdError: refused; EtcdUnavailableError: no answer within ``timeout_s`` seconds, or that
                there is no leader.
        """
        return self._accepted(path, *self._send("GET", path, "", timeout_s))

    def post(self, path: str, body: Mapping[str, object], answer: type[_T], timeout_s: float) -> _T:
        """Call a method of etcd's API.

        Raises:
            AuthenticationError: without permission; EtcdError: refused otherwise.
            EtcdUnavailableError: no answer within ``timeout_s`` seconds, or that there is no leader.
        """
        status, text = self._send("POST", path, json.dumps(body), timeout_s)
        if status in _NO_TOKEN and self.access.login is not None:
            # The first time, or the member was restarted (it keeps tokens in memory).
            self.access.token = self._authenticate(*self.access.login, timeout_s)
            status, text = self._send("POST", path, json.dumps(body), timeout_s)
        return self._understood(path, self._accepted(path, status, text), answer)

    def _authenticate(self, name: str, password: str, timeout_s: float) -> str:
        path, body = "/v3/auth/authenticate", json.dumps({"name": name, "password": password})
        text = self._accepted(path, *self._send("POST", path, body, timeout_s))
        return self._understood(path, text, _Token).token

    def _send(self, method: str, path: str, body: str, timeout_s: float) -> tuple[int, str]:
        access, headers = self.access, {}
        if access.token and not path.startswith("/v3/auth/authenticate"):
            headers["Authorization"] = access.token
        connection = (
            http.client.HTTPConnection(self.address, timeout=timeout_s)
            if access.tls is None
            else http.client.HTTPSConnection(self.address, timeout=timeout_s, context=access.tls)
        )
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            message = f"etcd at {self.address} did not answer {path}: {error!r}"
            raise EtcdUnavailableError(message) from error
        finally:
            connection.close()

    def _accepted(self, path: str, status: int, text: str) -> str:
        if status < 300:
            return text
        kind = {401: AuthenticationError, 403: AuthenticationError}.get(status, EtcdError)
        if status in _UNAVAILABLE or _SERVERS_DEADLINE in text:
            kind = EtcdUnavailableError
        raise kind(f"etcd at {self.address} refused {path}: HTTP {status} {text.strip()}")

    def _understood(self, path: str, text: str, answer: type[_T]) -> _T:
        try:
            # Not strict: the gateway writes 64-bit numbers as strings.
            return msgspec.json.decode(text, type=answer, strict=False)
        except msgspec.DecodeError as error:
            message = f"etcd at {self.address} gave an unknown answer to {path}: {error}"
            raise EtcdError(message) from error
