"""The `_async` twins of functions of this package."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

__all__ = ["twin"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def twin(call: Callable[_P, _T]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """Returns a coroutine function that runs `call` in a separate thread."""

    @functools.wraps(call)
    async def awaited(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        import asyncio  # here, because most programs import this package without it

        return await asyncio.to_thread(call, *args, **kwargs)

    awaited.__name__ = awaited.__qualname__ = f"{call.__name__}_async"
    awaited.__doc__ = f"Like `{call.__name__}`, as a coroutine."
    return awaited
