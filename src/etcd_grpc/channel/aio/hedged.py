"""The asyncio call of which several attempts may be under way (gRFC A6: hedging).

``Hedging`` decides; this drives it, on the channel's loop.  ``_final`` is resolved with the attempt
whose outcome is the call's, or with what stands in for it; all questions await that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import grpc

from etcd_grpc.channel.aio.calls import (
    AioDispatcher,
    AioSubchannel,
    Failed,
    Start,
    at_once,
    rpc_error,
)
from etcd_grpc.channel.hedge_waiter import HedgeWaiter
from etcd_grpc.channel.hedging import Hedging, Step
from etcd_grpc.channel.hedging import Start as Hedge
from etcd_grpc.channel.next_attempt import left_until
from etcd_grpc.channel.retry import never_left, pushback_ms

__all__ = ["HedgedCall"]


class HedgedCall(grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]
    """One request, one response, and perhaps several servers that are asked.

    Args:
        dispatcher: Where endpoints come from.
        start: Starts an attempt.
        machine: Decides.
        deadline: On time.monotonic's clock.
        wait_for_ready: As the caller of the RPC asked.
        metadata: Of the call, for policies that look at it.
        subchannel: Where the first attempt begins; None: wait for an endpoint.
    """

    def __init__(
        self,
        dispatcher: AioDispatcher,
        start: Start,
        machine: Hedging,
        deadline: float | None,
        wait_for_ready: bool,
        metadata: Any,
        subchannel: AioSubchannel | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._dispatcher = dispatcher
        self._start = start
        self._machine = machine
        self._deadline = deadline
        self._wait_for_ready = wait_for_ready
        self._metadata = metadata
        self._calls: dict[int, tuple[Any, AioSubchannel]] = {}  # the attempts, by their numbers
        self._errors: dict[int, grpc.aio.AioRpcError] = {}  # of those that found no endpoint
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled = False
        self._broken: Exception | None = None  # why an attempt could not even be made
        self._final: asyncio.Future[Any] = self._loop.create_future()
        self._callbacks: list[Callable[[Any], None]] = []
        (first,) = machine.begin().starts
        if subchannel is None:
            self._place(first)
        else:
            self._begin_on(first, subchannel)

    # The attempts.

    def _begin_on(self, hedge: Hedge, subchannel: AioSubchannel) -> None:
        call = self._start(subchannel, left_until(self._deadline), hedge.previous)
        self._calls[hedge.number] = (call, subchannel)
        task = self._loop.create_task(self._follow(hedge.number, call))
        self._tasks.add(task)  # the loop holds a task only weakly
        task.add_done_callback(self._tasks.discard)
        self._do(self._machine.started(hedge.number, time.monotonic()))

    async def _follow(self, number: int, call: Any) -> None:
        """Tell how an attempt ends; also of one that could not even begin, which has no status."""
        try:
            await call
        except asyncio.CancelledError:
            if self._tasks_end():
                raise
        except grpc.aio.AioRpcError:
            pass  # its status says it, below
        except Exception as error:  # noqa: BLE001 - such as metadata that cannot be sent; for who awaits
            self._fail(error)
            return
        self._ended(number, call)

    def _tasks_end(self) -> bool:
        """Whether it is this task that is cancelled, by its loop's end, and not an attempt."""
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def _place(self, hedge: Hedge) -> None:
        """Begin an attempt at an endpoint not yet tried, or any, or wait for one."""
        tried = [subchannel for _, subchannel in self._calls.values()]
        subchannel = self._dispatcher.pick(tried, self._metadata)
        if subchannel is not None:
            self._begin_on(hedge, subchannel)
            return
        self._dispatcher.enqueue(
            HedgeWaiter(
                self._deadline,
                self._wait_for_ready,
                self._metadata,
                partial(self._found, hedge),
                partial(self._missed, hedge),
            )
        )

    def _found(self, hedge: Hedge, subchannel: AioSubchannel) -> None:
        if not self._final.done():
            self._or_break(self._begin_on, hedge, subchannel)

    def _missed(self, hedge: Hedge, code: grpc.StatusCode, why: str) -> None:
        if code is grpc.StatusCode.CANCELLED:  # the channel is closed, which cancels its calls
            self.cancel()
            return
        self._errors[hedge.number] = rpc_error(code, why)
        self._do(self._machine.nowhere(hedge.number))

    def _ended(self, number: int, call: Any) -> None:
        if self._final.done():
            return
        subchannel = self._calls[number][1]
        code = at_once(call.code())
        if code is grpc.StatusCode.OK:
            self._do(self._machine.answered(number))
            return
        wish = pushback_ms(at_once(call.trailing_metadata()))
        address, connected = subchannel.endpoint.address, subchannel.connected()
        failed = code or grpc.StatusCode.UNKNOWN  # an interceptor's own call that will not say
        unseen = never_left(failed, at_once(call.details()), address, connected)
        now = time.monotonic()
        self._do(self._machine.failed(number, failed, wish, now, unseen=unseen))

    def _fail(self, error: Exception) -> None:
        """An attempt could not be made, and no other could."""
        if self._final.done():
            return
        self._broken = error
        self._settle(Failed(rpc_error(grpc.StatusCode.INTERNAL, str(error))))
        self._stop()

    def _look_if_closed(self) -> None:
        if self._dispatcher.closed:
            self.cancel()  # as a plain channel does with its calls

    def _tick(self, due_s: float) -> None:
        self._timer = None
        self._do(self._machine.tick(max(due_s, time.monotonic())))

    def _do(self, step: Step) -> None:
        """Do what the machine says."""
        if self._final.done():
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if step.final is not None:
            final = self._calls.get(step.final)
            self._settle(Failed(self._errors[step.final]) if final is None else final[0])
        elif step.wake_s is not None:
            left_s = max(0.0, step.wake_s - time.monotonic())
            self._timer = self._loop.call_later(left_s, self._tick, step.wake_s)
            # If nothing is under way that would end with the channel, we have to.
            if all(call.done() for call, _ in self._calls.values()) and not self._dispatcher.later(
                left_s, self._look_if_closed
            ):
                self.cancel()
        for number in step.cancel:
            self._calls[number][0].cancel()
        for hedge in step.starts:
            self._or_break(self._place, hedge)

    def _or_break(self, begin: Callable[..., None], *arguments: Any) -> None:
        """Begin an attempt when nobody is there to hear that the call's arguments are wrong."""
        try:
            begin(*arguments)
        except Exception as error:  # noqa: BLE001 - raised where the call is awaited
            self._fail(error)

    def _stop(self) -> None:
        """Let no attempt begin or go on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for call, _ in self._calls.values():
            call.cancel()

    def _settle(self, final: Any) -> None:
        self._final.set_result(final)
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception as error:  # noqa: BLE001 - the application's code, isolated
                self._loop.call_exception_handler(
                    {"message": "a done callback of a call raised", "exception": error}
                )

    async def _settled(self) -> Any:
        """The final attempt, or what stands in for it."""
        await asyncio.wait({self._final})
        return self._final.result()

    # grpc.aio.UnaryUnaryCall

    def __await__(self) -> Generator[Any, None, Any]:
        return self._response().__await__()

    async def _response(self) -> Any:
        try:
            final = await self._settled()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._cancelled:
            raise asyncio.CancelledError
        if self._broken is not None:
            raise self._broken
        if isinstance(final, Failed):
            raise final.error
        return await final

    def cancel(self) -> bool:
        if self._final.done():
            return False
        self._cancelled = True
        self._settle(Failed(rpc_error(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")))
        self._stop()
        return True

    def cancelled(self) -> bool:
        if self._cancelled or not self._final.done():
            return self._cancelled
        final = self._final.result()
        return not isinstance(final, Failed) and bool(final.cancelled())

    def done(self) -> bool:
        return self._final.done()

    def time_remaining(self) -> float | None:
        return left_until(self._deadline)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._final.done():
            callback(self)
        else:
            self._callbacks.append(callback)

    async def initial_metadata(self) -> Any:
        return await (await self._settled()).initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await (await self._settled()).trailing_metadata()

    async def code(self) -> grpc.StatusCode:
        code: grpc.StatusCode = await (await self._settled()).code()
        return code

    async def details(self) -> str:
        details: str = await (await self._settled()).details()
        return details

    async def debug_error_string(self) -> str:
        """C-core's description of the final attempt."""
        text: str = await (await self._settled()).debug_error_string()
        return text

    def __repr__(self) -> str:
        final = self._final.result() if self._final.done() else None
        if final is None:
            return f"<{type(self).__name__} object>"
        return repr(final.error if isinstance(final, Failed) else final)

    __str__ = __repr__

    async def wait_for_connection(self) -> None:
        final = await self._settled()
        if isinstance(final, Failed):
            raise final.error
        await final.wait_for_connection()
