"""The `_async` twins are awaitables that run together."""

from __future__ import annotations

import asyncio

import pytest

import jobrota
from support import column


def answers(vm: str) -> tuple[str, str]:
    return "10.0.0.1", "nic"


def test_the_twins_do_what_their_brothers_do(ledger: jobrota.JobLedger, sandbox: jobrota.Sandbox) -> None:
    async def work() -> None:
        await ledger.log_job_execution_async("a.sas", "J0", "SUCCESS")
        await asyncio.gather(*(ledger.log_job_completion_async("a.sas", f"J{n}", "SUCCESS") for n in range(8)))
        assert (await ledger.fetch_unprocessed_updates_async()).num_rows == 1
        pending = await ledger.pending_notifications_async(job_id="J7")
        assert await ledger.acknowledge_async(pending) == 1
        report = await jobrota.AutosysUpdater(ledger, lambda *row: True).run_async()
        assert (report.delivered, report.settled) == (7, 1)
        selector = jobrota.RoundRobinSelector(sandbox.inventory, cursor="process", probe=sandbox.probe)
        selections = await asyncio.gather(*(selector.select_async() for _ in range(3)))
        assert len({selection.vm for selection in selections}) == 3
        assert len(await selector.select_many_async(2)) == 2
        assert column(await selector.check_async(), "vm") == sandbox.inventory.names

    asyncio.run(work())


def test_a_comparison_can_be_awaited(sandbox: jobrota.Sandbox) -> None:
    runner = jobrota.ViyaComparisonRunner(
        sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, limit_jobs=1, async_only=True
    )

    async def work() -> jobrota.ComparisonResult:
        return await runner.run_async()

    assert asyncio.run(work()).failed_jobs == 0


def test_errors_come_through_the_await(ledger: jobrota.JobLedger) -> None:
    async def work() -> None:
        await ledger.pending_notifications_async()

    with pytest.raises(jobrota.NotFoundError):
        asyncio.run(work())


def test_waiting_holds_up_nobody(tmp_path: object) -> None:
    """While a slow probe is awaited, the event loop goes on."""
    from threading import Event

    release = Event()

    def slow(vm: str) -> tuple[str, str]:
        release.wait(30)
        return "10.0.0.1", "nic"

    async def work() -> str:
        selector = jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=slow, timeout=30)
        selection = asyncio.ensure_future(selector.select_async())
        await asyncio.sleep(0)
        assert not selection.done()
        release.set()
        return (await selection).vm

    assert asyncio.run(work()) == "vm1"
