"""Ways to AutoSys, and how a ledger status becomes an AutoSys event.

`AutosysUpdater` takes a transport: `SendEvent` runs the local `sendevent` program; any callable
`(file_name, job_id, status) -> bool` will do as well.

A mapping is one of the event names below for every status, or a dict from status to event:

>>> from jobrota import autosys
>>> autosys.STARTJOB_ON_SUCCESS
{'SUCCESS': 'STARTJOB', 'FAILURE': 'CHANGE_STATUS'}
"""

from __future__ import annotations

from typing import Final

from jobrota._native import SendEvent

__all__ = ["CHANGE_STATUS", "STARTJOB_ON_SUCCESS", "SendEvent"]

CHANGE_STATUS: Final = "CHANGE_STATUS"
"""Every status becomes `sendevent -E CHANGE_STATUS -s <status>`."""

STARTJOB_ON_SUCCESS: Final[dict[str, str]] = {"SUCCESS": "STARTJOB", "FAILURE": "CHANGE_STATUS"}
"""SUCCESS starts the job, as many sites do to release what waits for it; FAILURE changes the status."""
