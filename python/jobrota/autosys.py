"""Transports to AutoSys, and the mapping from a ledger status to an AutoSys event.

`AutosysUpdater` takes a transport: `SendEvent` runs the local `sendevent` program, `Ssh` and `RunCommand` run it on a
selected VM, `WebServices` posts to AutoSys's web services; any callable `(file_name, job_id, status) -> bool` works
as well. `Rehearsal` sends nothing.

Its `mapping` is one of the two names below, or a dict from ledger status to event, for example
`{"SUCCESS": "FORCE_STARTJOB", "FAILURE": "CHANGE_STATUS FAILURE", "ABORTED": "CHANGE_STATUS TERMINATED"}`.
"""

from __future__ import annotations

from typing import Final

from jobrota._native import Rehearsal, RunCommand, SendEvent, Ssh, WebServices

__all__ = ["CHANGE_STATUS", "STARTJOB", "Rehearsal", "RunCommand", "SendEvent", "Ssh", "WebServices"]

CHANGE_STATUS: Final = "CHANGE_STATUS"
"""SUCCESS, FAILURE, TERMINATED, RUNNING and INACTIVE change the job's status to the same word."""

STARTJOB: Final = "STARTJOB"
"""SUCCESS starts the job, which releases the jobs that wait for it; FAILURE changes its status to FAILURE."""
