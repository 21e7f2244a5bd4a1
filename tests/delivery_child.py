"""A process that delivers until it is killed, and writes down what it sends.

Usage: `delivery_child.py LEDGER SENT [LEASE_TTL [PAUSE]]`, both in seconds.
"""

from __future__ import annotations

import os
import sys
import time

import jobrota


def main(ledger: str, sent: str, lease_ttl: str = "1", pause: str = "0") -> None:
    log = os.open(sent, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def send(file_name: str, job_id: str, status: str) -> bool:
        # One write of one short line: complete or not at all, and visible to other processes at once.
        time.sleep(float(pause))
        os.write(log, f"{job_id} {file_name}\n".encode())
        return True

    updater = jobrota.AutosysUpdater(
        jobrota.JobLedger(ledger), send, concurrency=16, thread_safe=True, lease_ttl=float(lease_ttl)
    )
    print("ready", flush=True)
    while updater.run().pending:
        pass
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
