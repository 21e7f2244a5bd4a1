"""What the children of test_kills.py do until they are killed. Only what a forkserver may preload is imported here.

Each says what it is about to do and what returned, in a file of its own: lines written by one `os.write` each, which a
SIGKILL of the writer cannot take back.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

import jobrota


def run(role: str, root: str, name: str, report: str, started: Connection) -> None:
    """Logs (with one thread or four) or acknowledges until killed."""
    out = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(what: str, keys: list[str]) -> None:
        os.write(out, (json.dumps([what, keys]) + "\n").encode())

    ledger = jobrota.JobLedger(root)
    if role == "acknowledge":
        acknowledge(ledger, say, started)
    threads = 4 if role == "log from threads" else 1
    for number in range(1, threads):
        threading.Thread(target=log, args=(ledger, f"{name}.{number}", say, started), daemon=True).start()
    log(ledger, f"{name}.0", say, started)


def log(ledger: jobrota.JobLedger, name: str, say: Callable[[str, list[str]], None], started: Connection) -> None:
    """Logs one row after the other, each with a name of its own."""
    number = 0
    while True:
        key = f"{name}.{number}"
        say("logging", [key])
        ledger.log_job_completion("killed.sas", key, "SUCCESS")
        say("logged", [key])
        if number == 0:
            started.send_bytes(b".")
        number += 1


def acknowledge(ledger: jobrota.JobLedger, say: Callable[[str, list[str]], None], started: Connection) -> None:
    """Acknowledges what is pending, a few rows at a time."""
    first = True
    while True:
        pending = ledger.pending_notifications(limit=8)
        keys: list[str] = list(pending["job_id"].to_pylist())
        say("acknowledging", keys)
        ledger.acknowledge(pending)
        say("acknowledged", keys)
        if first and keys:
            started.send_bytes(b".")
            first = False
