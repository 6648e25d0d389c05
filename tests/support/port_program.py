"""A program that knows nothing of etcd: it listens on a port, and tells which signals it gets.

    python port_program.py PORT [--host H] [--delay S] [--linger S] [--status N] [--ignore-term] ...

Prints ``started PID``, ``child PID``, ``listening``, and ``got SIGNAME`` for each signal.  SIGTERM,
SIGINT and SIGQUIT end it, ``--linger`` seconds later, with status N.  A line on its standard input is
printed, too.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--linger", type=float, default=0)
    parser.add_argument("--status", type=int, default=0)
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--child", action="store_true")
    arguments = parser.parse_args()

    def got(number: int, frame: object) -> None:
        say("got", signal.Signals(number).name)
        if number in {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT} and not arguments.ignore_term:
            time.sleep(arguments.linger)
            os._exit(arguments.status)

    told = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"]
    for number in [signal.Signals[name] for name in told] + [signal.SIGRTMIN]:
        signal.signal(number, got)
    say("started", os.getpid())
    if arguments.child:
        child = subprocess.Popen(["sleep", "600"])
        say("child", child.pid)
    time.sleep(arguments.delay)
    family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
    with socket.create_server((arguments.host, arguments.port), family=family) as server:
        say("listening")
        threading.Thread(target=echo_input, daemon=True).start()
        server.settimeout(0.1)  # a thread that was stopped may take the signal, and wakes nobody then
        while True:
            with contextlib.suppress(TimeoutError):
                server.accept()[0].close()


def say(*words: object) -> None:
    """In one piece: a handler may run in the middle of a ``print``, and so may the other thread."""
    os.write(sys.stdout.fileno(), f"{' '.join(map(str, words))}\n".encode())


def echo_input() -> None:
    for line in sys.stdin:
        say("read", line.strip())


if __name__ == "__main__":
    main()
