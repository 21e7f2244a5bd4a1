"""Runs what an `async def` transport returns, on an event loop of its own: deliveries are sent from worker threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["run"]

_T = TypeVar("_T")


def run(awaitable: Awaitable[_T]) -> _T:
    """Waits for `awaitable` in this thread and returns its result, or raises what it raised."""

    async def wait() -> _T:
        return await awaitable

    return asyncio.run(wait())
