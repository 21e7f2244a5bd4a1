"""The asynchronous side: what the `_async` methods return, and what runs an `async def` transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

__all__ = ["run", "wait", "wait_in_order"]

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


def run(awaitable: Awaitable[_T]) -> _T:
    """Waits for `awaitable` in this thread and returns its result, or raises what it raised."""

    async def wait() -> _T:
        return await awaitable

    return asyncio.run(wait())
