"""The coroutines of the `_async` methods, and the event loop that runs an `async def` transport."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Protocol, TypeVar

__all__ = ["run", "run_in_order", "settle", "wait", "wait_in_order"]

_T = TypeVar("_T")


class _Work(Protocol):
    """Work of the native module that a coroutine awaits."""

    def begin(self) -> asyncio.Future[Any]:
        """Starts the work."""

    def stop(self) -> None:
        """Asks the work to end in order."""


async def wait(work: _Work) -> Any:
    """Starts `work` and returns its result. Canceling it ends the wait. Work that has begun can still finish."""
    return await work.begin()


async def wait_in_order(work: _Work) -> Any:
    """Starts `work` and returns its result. Canceling it stops the work, and waits for its end.

    Canceling it a second time ends the wait. The work still continues to its end. The argument of the cancellation is
    the result.
    """
    future = work.begin()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError as canceled:
        work.stop()
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            future.cancel()  # no caller waits for its result
            raise
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error from None  # such as KeyboardInterrupt from a callable
        canceled.args = (None if error else future.result(),)
        raise canceled from error


def settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Ends `future`, unless it was canceled. Called in its event loop."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def run_in_order(begin: Callable[[], Coroutine[Any, Any, _T]]) -> tuple[_T, BaseException | None]:
    """Runs a coroutine of `wait_in_order` in another thread. An interrupt of this thread stops it in order.

    Args:
        begin: Makes the coroutine.

    Returns:
        What the work returned, and the interrupt, such as `KeyboardInterrupt`, if there was one.

    Raises:
        BaseException: What the work raised. After an interrupt, it is the cause of the interrupt, which is raised. A
            second interrupt is raised at once.
    """
    tasks: list[asyncio.Task[Any] | None] = []

    async def outcome() -> tuple[Any, BaseException | None]:
        tasks.append(asyncio.current_task())
        # As a value: KeyboardInterrupt and SystemExit as exceptions would end the event loop.
        try:
            return await begin(), None
        except asyncio.CancelledError as canceled:
            return canceled.args[0], canceled.__cause__
        except BaseException as error:
            return None, error

    def stop() -> None:
        if not tasks:
            loop.call_soon(stop)
        for task in tasks:
            task and task.cancel()

    loop = _own_loop()
    future = asyncio.run_coroutine_threadsafe(outcome(), loop)
    interrupt: BaseException | None = None
    while True:
        try:
            result, error = future.result()
            break
        except BaseException as raised:  # of a handler for signals, because the future has values only
            if interrupt is not None:
                raise
            interrupt = raised
            loop.call_soon_threadsafe(stop)
    if error is not None:
        raise interrupt or error from (error if interrupt else error.__cause__)
    return result, interrupt


_CHECK_INTERVAL = 1.0
"""Seconds between two checks whether the event loop still exists."""

_loops: dict[int, asyncio.AbstractEventLoop] = {}
_starting = threading.Lock()


def _own_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process in a separate thread, for `async def` functions without a caller's event loop.

    There is one for all of them, so that objects that they share (a session, a lock) work.
    """
    # A forked child has the event loop of its parent, but not the thread that runs it.
    with _starting:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="jobrota-asyncio", daemon=True).start()
    return loop


def run(
    awaitable: Awaitable[_T],
    loop: asyncio.AbstractEventLoop | None = None,
    may_begin: Callable[[], bool] | None = None,
) -> _T | None:
    """Waits for `awaitable` in this thread and returns its result, or raises its exception.

    Args:
        awaitable: A coroutine or another awaitable.
        loop: The event loop that runs it, in another thread; None: one of this package.
        may_begin: Asked when the loop gets to it, which can take long. If it says no, a coroutine does not begin, and
            None is returned.

    Raises:
        RuntimeError: The event loop was closed before the end.
    """

    async def outcome() -> tuple[_T | None, None] | tuple[None, BaseException]:
        if may_begin is not None and asyncio.iscoroutine(awaitable) and not may_begin():
            awaitable.close()
            return None, None
        # As a value: KeyboardInterrupt and SystemExit as exceptions would end the event loop.
        try:
            return await awaitable, None
        except BaseException as error:
            return None, error

    running = loop or _own_loop()
    waiting = outcome()
    try:
        future = asyncio.run_coroutine_threadsafe(waiting, running)
    except RuntimeError:
        waiting.close()
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise
    # The own loop is never closed. A thread that wakes up while the interpreter ends would abort the process.
    interval = None if loop is None else _CHECK_INTERVAL
    while True:
        try:
            result, error = future.result(timeout=interval)
            break
        except FutureTimeoutError:
            # A closed event loop never ends what it runs.
            if running.is_closed():
                raise RuntimeError("the event loop was closed before the callable returned") from None
    if error is not None:
        raise error
    return result
