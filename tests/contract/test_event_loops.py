"""Several event loops in one process, one after another and side by side (row 35)."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys, threading
import grpc
import etcd_grpc

target, etcd, mode = sys.argv[1:4]
answers = []


def sync():
    return etcd_grpc.insecure_channel(target, etcd=etcd) if etcd else grpc.insecure_channel(target)


def new():
    if etcd:
        return etcd_grpc.aio.insecure_channel(target, etcd=etcd)
    return grpc.aio.insecure_channel(target)


async def use():
    async with new() as channel:
        echo = channel.unary_unary("/contract/Echo")
        for _ in range(10):
            answers.extend(await asyncio.gather(*(echo(b"x", timeout=30) for _ in range(5))))
        call = channel.unary_stream("/contract/Repeat")(b"x", timeout=30)
        answers.extend([response async for response in call])


def loops(count):
    for _ in range(count):
        asyncio.run(use())


if mode == "after":
    loops(6)
else:
    threads = [threading.Thread(target=loops, args=(2,)) for _ in range(3)]
    with sync() as channel:
        echo = channel.unary_unary("/contract/Echo")
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert echo(b"x", timeout=30) == b"x"
        for thread in threads:
            thread.join()
print(len(answers))
"""


@pytest.mark.parametrize("mode", ["after", "beside"])
def test_several_loops_in_one_process_fail_no_call_and_make_no_noise(world, mode):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, world.target, world.etcd or "", mode],
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.split() == [str(6 * 53)]
