"""A server in its own process that does what each request tells it to, and remembers what it saw.

A request of ``/script/Unary`` and ``/script/Stream``, and the first one of ``/script/Gather`` (many
requests, one response) and ``/script/Talk`` (many of both), is JSON::

    {"id": "x", "acts": {"127.0.0.1:4001": {...}, "*": {...}}}

The act under the server's own address counts, else that under ``*``, else it just answers:

    sleep_s   wait that long, or until the call is cancelled
    headers   send the initial metadata first
    after     (Gather, Talk) how many more requests are read first; all if nothing follows
    messages  (Stream, Talk) how many are sent before what follows; if nothing follows 2, or one for
              each request
    die       leave as by kill -9
    code      abort with that status
    pushback  ``grpc-retry-pushback-ms`` in its trailers

``/script/Log`` with an id returns what this server saw of it, as JSON: ``began``, ``waits`` (where it
sleeps), ``cancelled``, ``answered``, ``failed``, each with the headers.  Replies: ``<address> <id>``,
and what was requested.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc


class Script(grpc.GenericRpcHandler):
    """The methods."""

    def __init__(self) -> None:
        self.address = ""
        self._lock = threading.Lock()  # guards _seen
        self._seen: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return {
            "/script/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/script/Stream": grpc.unary_stream_rpc_method_handler(self.stream),
            "/script/Gather": grpc.stream_unary_rpc_method_handler(self.gather),
            "/script/Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "/script/Log": grpc.unary_unary_rpc_method_handler(self.log),
        }.get(handler_call_details.method)

    def log(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            return json.dumps(self._seen[request.decode()]).encode()

    def unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        name, act = self._begin(request, context)
        self._wait(name, act, context)
        self._end(name, act, context)
        return f"{self.address} {name}".encode()

    def stream(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        name, act = self._begin(request, context)
        follows = act.get("code") or act.get("die")
        for number in range(act.get("messages", 0 if follows else 2)):
            yield f"{self.address} {name} {number}".encode()
        self._wait(name, act, context)
        self._end(name, act, context)

    def gather(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        name, act = self._begin(next(requests), context)
        follows = act.get("code") or act.get("die")
        read = list(itertools.islice(requests, act.get("after", 0 if follows else None)))
        self._wait(name, act, context)
        self._end(name, act, context)
        return f"{self.address} {name} ".encode() + b",".join(read)

    def talk(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        name, act = self._begin(next(requests), context)
        follows = act.get("code") or act.get("die")
        for _ in itertools.islice(requests, act.get("after", 0)):
            pass
        for request in itertools.islice(requests, act.get("messages", 0 if follows else None)):
            yield f"{self.address} {name} ".encode() + request
        self._wait(name, act, context)
        self._end(name, act, context)

    def _note(self, name: str, what: str, context: grpc.ServicerContext) -> None:
        headers = dict(context.invocation_metadata())
        with self._lock:
            self._seen[name].append({"what": what, "at": time.monotonic(), "headers": headers})

    def _begin(self, request: bytes, context: grpc.ServicerContext) -> tuple[str, dict[str, Any]]:
        script = json.loads(request)
        name, acts = script["id"], script.get("acts", {})
        act = acts.get(self.address, acts.get("*", {}))
        self._note(name, "began", context)
        if act.get("headers"):
            context.send_initial_metadata((("sent", "early"),))
        return name, act

    def _wait(self, name: str, act: dict[str, Any], context: grpc.ServicerContext) -> None:
        if act.get("sleep_s"):
            self._note(name, "waits", context)
            ended = threading.Event()
            if not context.add_callback(ended.set) or ended.wait(act["sleep_s"]):
                self._note(name, "cancelled", context)

    def _end(self, name: str, act: dict[str, Any], context: grpc.ServicerContext) -> None:
        if act.get("die"):
            time.sleep(act.get("die_after_s", 0.0))  # what was written is on its way
            os.kill(os.getpid(), signal.SIGKILL)
        if "pushback" in act:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", act["pushback"]),))
        if "code" in act:
            self._note(name, "failed", context)
            context.abort(grpc.StatusCode[act["code"]], f"as told, at {self.address}")
        if context.is_active():
            self._note(name, "answered", context)


def main() -> None:
    script = Script()
    server = grpc.server(
        futures.ThreadPoolExecutor(32), handlers=[script], options=[("grpc.so_reuseport", 0)]
    )
    port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    script.address = f"127.0.0.1:{port}"
    server.start()
    print("ready", script.address, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
