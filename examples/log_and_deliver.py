"""Logs jobs, delivers their updates to AutoSys, and settles what AutoSys does not take."""

from __future__ import annotations

import tempfile

from jobrota import AutosysUpdater, JobLedger, Sandbox
from jobrota.autosys import SendEvent


def main() -> None:
    """Logs four jobs, and runs two delivery cycles."""
    with Sandbox(viya=False, vms=1, vms_down=0) as sandbox, tempfile.TemporaryDirectory() as root:
        ledger = JobLedger(root)

        # `track` logs the execution and the notification when the block ends: SUCCESS, or FAILURE if it raises.
        for job in ("STUDY.AE", "STUDY.CM", "STUDY.DM"):
            with ledger.track(f"{job}.sas", job):
                pass  # the job itself
        # AutoSys refuses this name: it has a space.
        ledger.log_job_execution("bad.sas", "NOT A NAME", "SUCCESS")
        ledger.log_job_completion("bad.sas", "NOT A NAME", "SUCCESS")

        # AutoSys is busy at first and refuses one event. The row stays pending, and the next cycle tries again.
        sandbox.refuse_once(["STUDY.CM"])
        updater = AutosysUpdater(ledger, SendEvent(sandbox.sendevent))
        for number in (1, 2):
            report = updater.run()
            print(f"cycle {number}: {report.delivered} delivered, {report.failed} failed, {report.parked} parked")
        print("AutoSys took:", [event["job"] for event in sandbox.autosys_events()])

        # A permanent failure parks the row. It stays pending until an operator decides.
        parked = ledger.parked()
        print("parked:", parked["job_id"].to_pylist(), parked["reason"].to_pylist())
        ledger.settle_by_hand(parked, reason="the name was a typing error", delivered=False)

        summary = ledger.summary()
        print(f"pending {summary.pending}, parked {summary.parked}, attempts {dict(summary.attempts)}")


if __name__ == "__main__":
    main()
