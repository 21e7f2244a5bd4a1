"""Logs, delivers and selects in an event loop. Each call that does I/O has a twin with the suffix `_async`."""

from __future__ import annotations

import asyncio
import tempfile

from jobrota import AutosysUpdater, JobLedger, RoundRobinSelector, Sandbox


async def run(sandbox: Sandbox, root: str) -> None:
    """Runs two jobs at the same time, each on its own VM, and delivers their updates."""
    ledger = JobLedger(root)
    selector = RoundRobinSelector(sandbox.inventory, cursor="process", probe=sandbox.probe)

    async def job(name: str) -> str:
        # `track` logs the execution and the notification when the block ends.
        async with ledger.track(f"{name}.sas", name), await selector.select_async() as selection:
            await asyncio.sleep(0.1)  # the job itself
            return selection.vm

    vms = await asyncio.gather(job("STUDY.AE"), job("STUDY.CM"))
    print("ran on", ", ".join(sorted(vms)))

    lock = asyncio.Lock()

    async def send(file_name: str, job_id: str, status: str) -> bool:
        # An `async def` transport runs on this event loop, so it can use its sessions and locks.
        async with lock:
            print("sent", job_id, status)
        return True

    report = await AutosysUpdater(ledger, send, concurrency=1).run_async()
    pending = await ledger.pending_notifications_async()
    print(f"{report.delivered} delivered, {pending.num_rows} pending")


def main() -> None:
    """Starts the sandbox and the event loop."""
    with Sandbox(viya=False, autosys=False, vms=2, vms_down=0) as sandbox, tempfile.TemporaryDirectory() as root:
        asyncio.run(run(sandbox, root))


if __name__ == "__main__":
    main()
