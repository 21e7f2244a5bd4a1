"""Transports to AutoSys, and the mapping from a ledger status to an AutoSys event.

`AutosysUpdater` takes a transport: `SendEvent` runs the local `sendevent` program, `Ssh` and `RunCommand` run it on a
selected VM, `WebServices` posts to AutoSys's web services; any callable `(file_name, job_id, status) -> bool` works
as well. `Rehearsal` sends nothing.

Its `mapping` is one of the two names below, or a dict from ledger status to event, for example
`{"SUCCESS": "FORCE_STARTJOB", "FAILURE": "CHANGE_STATUS FAILURE", "ABORTED": "CHANGE_STATUS TERMINATED"}`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from jobrota._native import Rehearsal, RunCommand, SendEvent, WebServices

with suppress(ImportError):  # the Cargo feature `ssh`
    from jobrota._native import Ssh

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Explains what a build lacks."""
        if name == "Ssh":
            raise AttributeError("this build has no Ssh: build it with the Cargo feature ssh")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["CHANGE_STATUS", "STARTJOB", "Rehearsal", "RunCommand", "SendEvent", "Ssh", "WebServices"]
__all__ = [name for name in __all__ if name != "Ssh" or name in globals()]

CHANGE_STATUS: Final = "CHANGE_STATUS"
"""SUCCESS, FAILURE, TERMINATED, RUNNING and INACTIVE change the job's status to the same word."""

STARTJOB: Final = "STARTJOB"
"""SUCCESS starts the job, which releases the jobs that wait for it; FAILURE changes its status to FAILURE."""
