"""Reads the argument `storage_options`, and asks what provides options for a time.

>>> from jobrota import JobLedger
>>> import tempfile, time
>>> def credentials():
...     return {"aws_access_key_id": "…", "aws_secret_access_key": "…", "expires_at": time.time() + 3600}
>>> ledger = JobLedger(tempfile.mkdtemp(), storage_options=credentials)  # a local directory asks for none
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from jobrota._native import scrubbed
from jobrota.awaiting import run
from jobrota.azure_credentials import is_text, moment, token
from jobrota.errors import AuthenticationError, InvalidInputError, JobrotaError
from jobrota.storage_options import TokenCredential

__all__ = ["read"]

_SCOPE = "https://storage.azure.com/.default"  # in every cloud of Azure
_TIME_LIMIT = 60.0  # after that, the caller in Rust does not wait any more
_SHORTEST_SECRET = 4
_SECRET_WORDS = ("key", "secret", "token", "sas", "password", "credential")
_REMEMBERED = 100
_EARLIEST = 1_000_000_000  # in 2001; a smaller number is a duration

Answer: TypeAlias = tuple[dict[str, str], datetime | None]


def read(given: object) -> tuple[dict[str, str], tuple[str, Callable[[], Answer]] | None]:
    """Returns the fixed options, and the provider with its name.

    Raises:
        InvalidInputError: `given` has another type, or a key or value has. No value is shown.

    >>> read({"timeout": "1m", "allow_http": True})
    ({'timeout': '1m', 'allow_http': 'true'}, None)
    """
    options = dict(given) if isinstance(given, Mapping) else {"provider": given}
    if "expires_at" in options:
        raise InvalidInputError('has the key "expires_at", which belongs into what a provider returns')
    if "provider" not in options:
        return _texts(options), None
    provider = options.pop("provider")
    if not callable(provider) and not isinstance(provider, TokenCredential):
        kind = type(provider).__name__
        expected = "a callable that returns options, or an object with get_token(scope)"
        expected = f'["provider"] must be {expected}' if isinstance(given, Mapping) else f"must be a dict, {expected}"
        raise InvalidInputError(f"{expected}, not a value of type {kind}")
    name: str = getattr(provider, "__qualname__", type(provider).__qualname__)
    fixed = _texts(options)
    return fixed, (name, _Asking(provider, fixed))


class _Asking:
    """Asks a provider in this thread, one thread at a time."""

    def __init__(self, provider: Any, fixed: Mapping[str, str]) -> None:
        """Takes a callable, or an object with `get_token`, and the fixed options."""
        self._provider = provider
        # Values that no error shows: the fixed ones, and those of the last answers.
        self._fixed = _secrets(fixed)
        self._secrets: deque[str] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()

    def __call__(self) -> Answer:
        """Returns the options, and when they expire, in UTC.

        Raises:
            AuthenticationError: The provider raised an error, whose `retryable` counts.
            InvalidInputError: The provider returned something else.
        """
        if not self._lock.acquire(timeout=_TIME_LIMIT):
            raise AuthenticationError("an earlier call of it has not returned yet", retryable=True)
        try:
            answer = self._answer()
            self._secrets.extend(_secrets(answer[0]))
            return answer
        finally:
            self._lock.release()

    def _answer(self) -> Answer:
        is_credential = isinstance(self._provider, TokenCredential)
        try:
            answer = self._provider.get_token(_SCOPE) if is_credential else self._provider()
            if hasattr(answer, "__await__"):
                from asyncio import wait_for

                answer = run(wait_for(answer, _TIME_LIMIT - 1))
        except BaseException as error:  # of a thread that is not the caller's
            text = str(error) if isinstance(error, JobrotaError) else f"{type(error).__name__}: {error}"
            retryable = getattr(error, "retryable", True) is not False
            raise AuthenticationError(scrubbed(text, [*self._fixed, *self._secrets]), retryable=retryable) from error
        if is_credential:
            text, expires_on = token(answer)
            return _texts({"azure_storage_token": text}), expires_on
        if not isinstance(answer, Mapping):
            kind = type(answer).__name__
            raise InvalidInputError(f"it must return a dict of options and expires_at, not a value of type {kind}")
        options = {key: value for key, value in answer.items() if value is not None}
        expires_at = options.pop("expires_at", None)
        try:
            texts = _texts(options)
        except InvalidInputError as error:
            raise InvalidInputError(f"what it returned {error}") from None
        if not texts:
            raise InvalidInputError("it returned no options, where credentials are expected")
        if expires_at is None:
            return texts, None
        at = moment("expires_at", expires_at)
        if at.timestamp() < _EARLIEST:
            raise InvalidInputError(f"its expires_at is {expires_at}: it must be a time, such as time.time() + 3600")
        return texts, at


def _secrets(options: Mapping[str, str]) -> list[str]:
    is_secret = {name: any(word in name.lower() for word in _SECRET_WORDS) for name in options}
    return [value for name, value in options.items() if is_secret[name] and len(value) >= _SHORTEST_SECRET]


def _texts(options: Mapping[Any, Any]) -> dict[str, str]:
    """Converts names and values to text. No error shows a value, which can be a credential."""
    texts = {}
    for key, value in options.items():
        if not is_text(key):
            raise InvalidInputError(f"has a key of type {type(key).__name__}: keys are text")
        if type(value).__name__ in ("bool", "bool_"):  # of numpy, too
            texts[key] = "true" if value else "false"
        elif isinstance(value, int | float):
            texts[key] = str(value)
        elif hasattr(value, "total_seconds"):
            texts[key] = f"{value.total_seconds():f}s"
        elif is_text(value):
            texts[key] = value
        else:
            raise InvalidInputError(f'["{key}"] must be text, not a value of type {type(value).__name__}')
        # A document, such as a service account key, has lines.
        if not texts[key].isprintable() and not texts[key].lstrip().startswith(("{", "-----")):
            raise InvalidInputError(f'["{key}"] has a character that no option has, such as a line break at its end')
    return texts
