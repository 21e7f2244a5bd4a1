"""The asynchronous side: what the `_async` methods return, and what runs an `async def` transport."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar, cast

__all__ = ["run", "settle", "wait", "wait_in_order"]

_T = TypeVar("_T")


class _Work(Protocol):
    """Something of the native module that is to be awaited."""

    def begin(self) -> asyncio.Future[Any]:
        """Starts it."""

    def stop(self) -> None:
        """Asks it to come to an orderly end."""


async def wait(work: _Work) -> Any:
    """Starts `work` and returns its result. Nobody waits for it any more once this is canceled."""
    return await work.begin()


async def wait_in_order(work: _Work) -> Any:
    """Starts `work` and returns its result. Once this is canceled, `work` is stopped, and its end is waited for.

    Canceled a second time, it does not wait; `work` goes on to its end all the same.
    """
    future = work.begin()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError as canceled:
        work.stop()
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            future.cancel()  # nobody is left to be told
            raise
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error from None  # such as KeyboardInterrupt, which a callable raised
        raise canceled from error


def settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Ends `future`, unless it was canceled meanwhile. Called in its event loop."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class _Loop:
    """An event loop in a thread of its own, for `async def` functions that are called from other threads."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="jobrota-asyncio", daemon=True).start()


_loops: dict[int, _Loop] = {}
_starting = threading.Lock()


def run(awaitable: Awaitable[_T]) -> _T:
    """Waits for `awaitable` in this thread and returns its result, or raises what it raised.

    All of them run on one event loop of this process, so that what they share (a session, a lock) works.
    """

    async def wait() -> tuple[_T, None] | tuple[None, BaseException]:
        # Handed over as a value: KeyboardInterrupt and SystemExit would end the loop for everybody.
        try:
            return await awaitable, None
        except BaseException as error:
            return None, error

    # A forked child has its parent's loop, but not the thread that runs it.
    with _starting:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = _Loop()
    result, error = asyncio.run_coroutine_threadsafe(wait(), loop.loop).result()
    if error is not None:
        raise error
    return cast("_T", result)
