"""The types that the argument `storage_options` can have.

>>> from jobrota.storage_options import StorageOptions
>>> options: StorageOptions = {"azure_storage_account_name": "mine", "timeout": "10s"}
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Protocol, TypeAlias, runtime_checkable

__all__ = ["OptionsProvider", "StorageOptions", "TokenCredential"]


@runtime_checkable
class TokenCredential(Protocol):
    """A credential such as those of `azure.identity` and `azure.identity.aio`."""

    def get_token(self, scope: str, /) -> Any:
        """Returns an object with `token` and `expires_on`, or an awaitable of one."""


OptionsProvider: TypeAlias = Callable[[], Mapping[str, Any] | Awaitable[Mapping[str, Any]]] | TokenCredential
"""A function that returns options of a store and `expires_at`, or a credential that gives tokens for Azure storage."""

StorageOptions: TypeAlias = Mapping[str, str | float | bool | timedelta | OptionsProvider] | OptionsProvider
"""Options of a store by name, what provides them, or a dict of options with the provider as `provider`."""
