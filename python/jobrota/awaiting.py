"""Runs the `_async` methods, and `async def` transports."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar, cast

__all__ = ["run", "settle", "wait", "wait_in_order"]

_T = TypeVar("_T")


class _Work(Protocol):
    """An operation of the native module that can be awaited."""

    def begin(self) -> asyncio.Future[Any]:
        """Starts it."""

    def stop(self) -> None:
        """Asks it to end in order."""


async def wait(work: _Work) -> Any:
    """Starts `work` and returns its result. If this is canceled, `work` continues, and its result is dropped."""
    return await work.begin()


async def wait_in_order(work: _Work) -> Any:
    """Starts `work` and returns its result. If this is canceled, it asks `work` to stop, and waits for the end.

    If it is canceled again, it does not wait. `work` still runs to its end.
    """
    future = work.begin()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError as canceled:
        work.stop()
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            future.cancel()  # no caller is left that could take the result
            raise
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error from None  # for example KeyboardInterrupt, raised by a callable
        raise canceled from error


def settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Ends `future`, unless it was canceled in the meantime. Called in its event loop."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class _Loop:
    """An event loop in a separate thread, for `async def` functions that other threads call."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="jobrota-asyncio", daemon=True).start()


_loops: dict[int, _Loop] = {}
_starting = threading.Lock()


def run(awaitable: Awaitable[_T]) -> _T:
    """Waits for `awaitable` in this thread and returns its result, or raises its exception.

    All awaitables run on one event loop of this process, so that shared objects (a session, a lock) work.
    """

    async def wait() -> tuple[_T, None] | tuple[None, BaseException]:
        # Returned as a value: a raised KeyboardInterrupt or SystemExit would end the loop, which all awaitables share.
        try:
            return await awaitable, None
        except BaseException as error:
            return None, error

    # A forked child has the loop of its parent, but not the thread that runs the loop.
    with _starting:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = _Loop()
    result, error = asyncio.run_coroutine_threadsafe(wait(), loop.loop).result()
    if error is not None:
        raise error
    return cast("_T", result)
