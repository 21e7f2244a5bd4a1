"""Forks processes that deliver from a ledger until nothing is pending, each with a wall clock of its own.

Usage: `fenced_child.py`, with the library of shifted_clock.c in `LD_PRELOAD`. For each line on standard input, the
settings of a process in JSON, it says the process's id. Forked from a process that has only imported, a process starts
without an interpreter's start.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobrota
from jobrota.autosys import RunCommand, SendEvent, Ssh, WebServices

PR_SET_PDEATHSIG = 1


def callable_sender(name: str, port: int) -> Callable[[str, str, str], bool]:
    """Asks the AutoSys of autosys_stand_in.py when to send, as its `sendevent` does."""

    def send(file_name: str, job_id: str, status: str) -> bool:
        with socket.create_connection(("127.0.0.1", port)) as server, server.makefile("rw", newline="\n") as lines:

            def ask(line: str) -> str:
                lines.write(line)
                lines.flush()
                return lines.readline()

            if ask(f"ask\t{job_id}\t{status}\t{name} {file_name}\n") != "go\n":
                raise ConnectionError("nothing was sent")
            if ask("event\n") != "ok\n":
                time.sleep(10)  # whether it arrived is not known: no answer within the time limit
                raise ConnectionError("no answer")
            return True

    return send


def transport(name: str, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The transport, and options of the updater."""
    port, program, comment, limit = given["port"], given["program"], f"{name} {{file_name}}", given["limit"]
    match given["transport"]:
        case "callable":
            return callable_sender(name, port), {"send_timeout": limit, "thread_safe": given["thread_safe"]}
        case "sendevent":
            return SendEvent(program, timeout=limit, comment=comment), {}
        case "web_services":
            base = f"http://127.0.0.1:{port}"
            return WebServices(base, user="u", password="p", timeout=limit, comment=comment), {}
        case "ssh":
            limits = {"connect_timeout": limit, "timeout": limit, "batch": given["batch"]}
            address = given["ssh"].pop("address")
            vms = jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=lambda vm: (address, "nic"))
            return Ssh(vms, program=program, comment=comment, **limits, **given["ssh"]), {}
        case _:
            limits = {"timeout": limit, "event_timeout": limit, "busy_timeout": limit, "batch": given["batch"]}
            vms = jobrota.RoundRobinSelector(["vm1", "vm2"], cursor="process", probe=lambda vm: ("127.0.0.1", "nic"))
            return RunCommand(vms, program=program, comment=comment, **limits, **given["azure"]), {}


def deliver(given: dict[str, Any]) -> None:
    """Runs cycles until nothing is pending. Writes down how each of them ended, and what the log says."""
    name = given["name"]
    clock = ctypes.CDLL(None).follow_clock
    if clock(os.fsencode(given["clock"])):
        raise OSError("the file of the clock cannot be read")
    out = os.open(given["report"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(what: str, **more: Any) -> None:
        line = {"at": time.monotonic(), "wall": time.time(), "what": what, **more}
        os.write(out, (json.dumps(line) + "\n").encode())

    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s"
    )
    sender, options = transport(name, given)
    updater: jobrota.AutosysUpdater | None = None
    say("ready")
    while True:
        try:
            if updater is None:
                ledger = jobrota.JobLedger(given["root"], storage_options=given["storage_options"])
                updater = jobrota.AutosysUpdater(ledger, sender, lease_ttl=given["limit"], **options)
            report = updater.run()
        except jobrota.JobrotaError as error:
            say("error", error=type(error).__name__, retryable=error.retryable, text=str(error))
            if not error.retryable:
                return
            time.sleep(given["pause"])
            continue
        counts = {word: getattr(report, word) for word in ("delivered", "failed", "unknown", "parked", "recovered")}
        say("cycle", pending=report.pending, waiting=report.waiting, held_by=report.lease_held_by, **counts)
        if not report.pending:
            break
        if report.lease_held_by or report.waiting:
            time.sleep(given["pause"])
    say("done")


def main() -> None:
    """Forks until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process stays when it has ended
    for line in sys.stdin:
        given = json.loads(line)
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(Path(given["report"]).with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with contextlib.ExitStack() as end:
            end.callback(os._exit, 0)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for old, new in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(old, new)
            try:
                deliver(given)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()


if __name__ == "__main__":
    main()
