"""The exceptions. Each is a `JobrotaError`, whose `retryable` says whether a retry can help.

>>> import jobrota
>>> try:
...     jobrota.JobLedger("/dbfs/ledger")
... except jobrota.JobrotaError as error:
...     print(type(error).__name__, error.retryable)
UnsupportedError False
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "AuthenticationError",
    "ConflictError",
    "DeliveryError",
    "InternalError",
    "InvalidInputError",
    "JobrotaError",
    "LeaseHeldError",
    "MaintenanceWarning",
    "MissingPackageError",
    "NetworkError",
    "NoReachableVmError",
    "NotFoundError",
    "ServerError",
    "StorageError",
    "UnsupportedError",
]


class JobrotaError(Exception):
    """The base of all errors of jobrota.

    Attributes:
        retryable: Whether the same call can succeed later without any change by the caller.
    """

    def __init__(self, message: str = "", *, retryable: bool = False) -> None:
        """Takes the text for people and whether trying again can help."""
        super().__init__(message)
        self.retryable = retryable

    def __reduce__(self) -> tuple[Callable[..., JobrotaError], tuple[Any, ...]]:
        """Pickles with all attributes, so that errors survive process pools."""
        return _rebuild, (type(self), str(self), dict(self.__dict__))


class InvalidInputError(JobrotaError, ValueError):
    """An argument, file or setting is invalid. Nothing was written."""

    def add_note(self, note: str, /) -> None:
        """Adds a note, as every exception does from Python 3.11 on.

        The note with which the native module names an argument goes into the text instead, where it is always shown.
        """
        argument = note.removeprefix("while processing '").removesuffix("'")
        if note == f"while processing '{argument}'":
            self.args = (f"{argument} {self}",)
        else:
            self.__dict__.setdefault("__notes__", []).append(note)


class NotFoundError(JobrotaError, LookupError):
    """A ledger, file, compute context or other named thing does not exist."""


class ConflictError(JobrotaError):
    """Other writers won each try until the time limit."""


class LeaseHeldError(ConflictError):
    """Another process holds the lease, and the action must not run twice at the same time."""


class UnsupportedError(JobrotaError):
    """The table, path or platform has a feature that this version does not support."""


class MissingPackageError(UnsupportedError, ImportError):
    """A package of an extra is not installed. The text says how to install it."""


class StorageError(JobrotaError, OSError):
    """The store failed: disk full, permission denied, object store unavailable."""


class NetworkError(JobrotaError, ConnectionError):
    """A server could not be reached, or closed the connection."""


class AuthenticationError(JobrotaError):
    """Credentials are missing, expired or refused."""


class ServerError(JobrotaError):
    """A server answered with an error."""


class NoReachableVmError(JobrotaError):
    """No VM of the inventory answered.

    Attributes:
        failures: The reason per VM, in inventory order.
    """

    def __init__(self, message: str = "", *, retryable: bool = True, failures: Mapping[str, str] | None = None) -> None:
        """Takes the text and the reason for each VM."""
        super().__init__(message, retryable=retryable)
        self.failures: dict[str, str] = dict(failures or {})


class DeliveryError(JobrotaError):
    """AutoSys or the transport refused an event."""


class InternalError(JobrotaError):
    """A defect of jobrota, or of the machine that it runs on."""


def _rebuild(cls: type[JobrotaError], message: str, attributes: dict[str, Any]) -> JobrotaError:
    error = cls(message)
    error.__dict__.update(attributes)
    return error


class MaintenanceWarning(UserWarning):
    """A table of the ledger has so many small files that calls are slow: call `maintain()`.

    Given once per ledger object and table.
    """
