"""Azure credentials that callers give: the parts of a dict, and the answers of callables and of `azure.identity`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone

from jobrota.errors import InvalidInputError

__all__ = ["is_text", "moment", "parts", "token"]

_KEYS = ("tenant_id", "client_id", "client_secret", "authority_host")
_IN_MILLISECONDS = 1e11  # as seconds it would be after the year 5138


def parts(given: Mapping[str, str | None]) -> tuple[str | None, str, str | None, str | None]:
    """Returns the tenant, client, secret and login service of a dict.

    Raises:
        InvalidInputError: A key is unknown, or others are missing. No value is shown.

    >>> parts({"client_id": "c"})
    (None, 'c', None, None)
    """
    found: dict[str, str] = {}
    for key, value in given.items():
        if key not in _KEYS:
            shown = f"the unknown key {key!r}" if isinstance(key, str) else f"a key of type {type(key).__name__}"
            raise InvalidInputError(f"credential has {shown}: known are {', '.join(_KEYS)}")
        if value is None:
            continue
        if not is_text(value):
            raise InvalidInputError(f'credential["{key}"] must be text, not a value of type {type(value).__name__}')
        found[key] = value.strip()
        if not found[key]:
            raise InvalidInputError(f'credential["{key}"] is empty')
    tenant, client, secret, authority = (found.get(key) for key in _KEYS)
    if client is None or (tenant is None) != (secret is None):
        raise InvalidInputError(
            "credential must have tenant_id, client_id and client_secret for a service principal, or client_id alone "
            "for a user-assigned managed identity"
        )
    return tenant, client, secret, authority


def token(answer: object) -> tuple[str, datetime | None]:
    """Returns the token in the answer of a credential, and when it expires, in UTC.

    Raises:
        InvalidInputError: The answer is something else. It is not shown.

    >>> token(("not a real one", 1767225600))
    ('not a real one', datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc))
    """
    if hasattr(answer, "__await__"):
        if hasattr(answer, "close"):
            answer.close()  # without it, Python warns that the coroutine was never awaited
        raise InvalidInputError(
            "the credential is asynchronous: give the synchronous one, as of azure.identity, not azure.identity.aio"
        )
    text: object = answer
    expires: object = None
    if type(answer) is tuple and len(answer) == 2:
        text, expires = answer
    elif not isinstance(answer, str):
        text, expires = getattr(answer, "token", None), getattr(answer, "expires_on", None)
    if not isinstance(text, str) or not is_text(text):
        raise InvalidInputError(
            "the credential must return a token (text), (token, expires_on) or an object with .token and "
            f".expires_on, and it returned a value of type {type(answer).__name__}"
        )
    return text, None if expires is None else moment("the credential's expires_on", expires)


def moment(name: str, value: object) -> datetime:
    """Returns a time in UTC. Milliseconds since 1970, as those of Databricks, are told from seconds by their size.

    Raises:
        InvalidInputError: The value is no time, or has no timezone. `name` says what it is.

    >>> moment("expires_at", "2026-01-31T12:00:00+01:00") == moment("expires_at", 1769857200000)
    True
    """
    found = value
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        elif not isinstance(value, datetime) and math.isfinite(number := float(value)):  # type: ignore[arg-type]
            found = datetime.fromtimestamp(number / 1000 if number >= _IN_MILLISECONDS else number, timezone.utc)
        if isinstance(found, datetime) and found.tzinfo is not None:
            return found.astimezone(timezone.utc)
    except (ValueError, TypeError, OverflowError, OSError):
        pass
    raise InvalidInputError(
        f"{name} must be seconds or milliseconds since 1970, or a time with a timezone: a datetime, or text such as "
        "'2026-01-31T12:00:00Z'"
    )


def is_text(value: object) -> bool:
    """Whether the value is text that UTF-8 can hold."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False
