"""The `_async` twins are coroutines that run at the same time, and end in order when they are canceled."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import jobrota
from reported_runs import recorded
from support import answers, column


def test_async_twins_match(ledger: jobrota.JobLedger, sandbox: jobrota.Sandbox) -> None:
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


def test_awaiting_does_not_block_loop(tmp_path: object) -> None:
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


def test_nothing_starts_before_it_is_awaited(ledger: jobrota.JobLedger, sandbox: jobrota.Sandbox) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    sent: list[str] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        sent.append(job_id)
        return True

    selector = jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=answers)
    runner = jobrota.ViyaComparisonRunner(sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, limit_jobs=1)
    pending = ledger.pending_notifications()
    coroutines: list[Coroutine[Any, Any, object]] = [
        ledger.log_job_execution_async("a.sas", "A", "SUCCESS"),
        ledger.log_job_completion_async("a.sas", "A", "SUCCESS"),
        ledger.fetch_unprocessed_updates_async(),
        ledger.pending_notifications_async(),
        ledger.acknowledge_async(pending),
        jobrota.AutosysUpdater(ledger, send).run_async(),
        selector.select_async(),
        selector.select_many_async(2),
        selector.check_async(),
        runner.run_async(),
    ]
    for coroutine in coroutines:
        assert inspect.iscoroutine(coroutine)
        coroutine.close()
    assert sent == []
    assert ledger.notifications().num_rows == ledger.pending_notifications().num_rows == 1


def test_each_twin_can_be_run_by_itself(ledger: jobrota.JobLedger) -> None:
    asyncio.run(ledger.log_job_completion_async("a.sas", "A", "SUCCESS"))
    assert asyncio.run(jobrota.AutosysUpdater(ledger, lambda *row: True).run_async()).delivered == 1
    selector = jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=answers)
    assert asyncio.run(selector.select_async()).vm == "vm1"


class Slow:
    """Takes events, but is silent about the third one until it may answer; what comes after that is counted."""

    def __init__(self) -> None:
        """Silent at first."""
        self.third, self.may_answer = threading.Event(), threading.Event()
        self.taken: list[str] = []

    def __call__(self, file_name: str, job_id: str, status: str) -> bool:
        self.taken.append(job_id)
        if len(self.taken) == 3:
            self.third.set()
            assert self.may_answer.wait(30)
        return True


def log_five(ledger: jobrota.JobLedger) -> None:
    for number in range(5):
        ledger.log_job_completion("a.sas", f"J{number}", "SUCCESS")


def assert_three_are_settled(ledger: jobrota.JobLedger, taken: list[str], *, still_leased: bool = False) -> None:
    assert taken == ["J0", "J1", "J2"]
    assert column(ledger.pending_notifications(), "job_id") == ["J3", "J4"]
    again: list[str] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        again.append(job_id)
        return True

    report = jobrota.AutosysUpdater(ledger, send).run()
    while still_leased and report.delivered == 0:  # the lease is given back after the outcomes are written
        time.sleep(0.01)
        report = jobrota.AutosysUpdater(ledger, send).run()
    assert (report.delivered, report.recovered, report.pending) == (2, 0, 0)
    assert sorted(again) == ["J3", "J4"]


def test_a_canceled_delivery_loses_no_outcome(ledger: jobrota.JobLedger) -> None:
    log_five(ledger)
    slow = Slow()

    async def work() -> None:
        delivery = asyncio.ensure_future(jobrota.AutosysUpdater(ledger, slow).run_async())
        await asyncio.to_thread(slow.third.wait, 30)
        delivery.cancel()
        await asyncio.sleep(0)
        assert not delivery.done(), "the answer to what is under way is waited for"
        slow.may_answer.set()
        with pytest.raises(asyncio.CancelledError):
            await delivery

    asyncio.run(work())
    assert_three_are_settled(ledger, slow.taken)


def test_a_delivery_that_took_too_long_loses_no_outcome(ledger: jobrota.JobLedger) -> None:
    log_five(ledger)
    slow = Slow()

    async def work() -> None:
        delivery = jobrota.AutosysUpdater(ledger, slow).run_async()
        asyncio.get_running_loop().call_later(0.5, slow.may_answer.set)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(delivery, 0.25)

    asyncio.run(work())
    done = len(slow.taken)
    assert ledger.pending_notifications().num_rows == 5 - done
    assert column(ledger.deliveries(), "outcome").count("delivered") == done


def test_second_cancel_does_not_wait(ledger: jobrota.JobLedger) -> None:
    log_five(ledger)
    slow = Slow()

    async def work() -> None:
        delivery = asyncio.ensure_future(jobrota.AutosysUpdater(ledger, slow).run_async())
        await asyncio.to_thread(slow.third.wait, 30)
        delivery.cancel()
        await asyncio.sleep(0)
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
        slow.may_answer.set()
        while ledger.pending_notifications().num_rows > 2:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(work(), 60))
    assert_three_are_settled(ledger, slow.taken, still_leased=True)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_inside_an_awaited_delivery_goes_on(
    ledger: jobrota.JobLedger, interrupt: type[BaseException]
) -> None:
    log_five(ledger)

    async def send(file_name: str, job_id: str, status: str) -> bool:
        if job_id == "J2":
            raise interrupt("enough")
        return True

    with pytest.raises(interrupt, match="enough"):
        asyncio.run(jobrota.AutosysUpdater(ledger, send, concurrency=1).run_async())
    assert column(ledger.pending_notifications(), "job_id") == ["J2", "J3", "J4"]


def test_an_interrupt_inside_an_awaited_probe_goes_on() -> None:
    def probe(vm: str) -> tuple[str, str]:
        raise KeyboardInterrupt("enough")

    selector = jobrota.RoundRobinSelector(["vm1", "vm2"], cursor="process", probe=probe)
    for call in (selector.select_async, lambda: selector.select_many_async(2), selector.check_async):
        with pytest.raises(KeyboardInterrupt, match="enough"):
            asyncio.run(call())


def test_every_call_that_does_io_has_a_twin() -> None:
    """The names of calls without I/O, which need no twin; all others have one. docs/python.md lists them."""
    from jobrota import report
    from jobrota.viya import CodeLogin, ViyaSession

    without: dict[Any, set[str]] = {
        jobrota: {"sandbox_calibration"},
        report: {"require"},
        jobrota.Inventory: set(),
        jobrota.JobLedger: {"track", "open_async"},  # the latter is the twin of the constructor
        jobrota.AutosysUpdater: set(),
        jobrota.RoundRobinSelector: set(),
        jobrota.Selection: set(),
        jobrota.ViyaComparisonRunner: {"describe"},
        jobrota.ComparisonResult: {"arms", "from_table", "hosts", "jobs", "phases", "to_dict"},
        ViyaSession: {"begin_login"},
        CodeLogin: set(),
        jobrota.Sandbox: {
            "autosys_events",
            "azure_requests",
            "azure_scripts",
            "azure_token",
            "refuse_once",
            "set_azure_output_limit",
            "set_azure_power",
            "set_azure_public_url",
            "set_azure_run_command",
            "viya_jobs",
            "viya_requests",
        },
    }
    for owner, local in without.items():
        members = {name: getattr(owner, name) for name in getattr(owner, "__all__", dir(owner)) if name[0] != "_"}
        names = {name for name, member in members.items() if callable(member) and not inspect.isclass(member)}
        calls = {name for name in names if not name.endswith("_async")} - local
        assert {f"{name}_async" for name in calls} == names - calls - local, owner


def test_twins_of_notebook_functions(tmp_path: Path) -> None:
    async def work() -> None:
        await jobrota.configure_async(ledger=tmp_path / "ledger", probe=answers)
        assert await jobrota.select_reachable_vm_async(["vm1"]) == ("vm1", "10.0.0.1", "nic-vm1")
        assert await jobrota.ping_test_async("vm1") == ("10.0.0.1", "nic-vm1")
        await jobrota.log_job_execution_async("a.sas", "A", "SUCCESS")
        await jobrota.log_job_execution_async("b.sas", "B", "SUCCESS")
        await jobrota.log_job_completion_async("a.sas", "A", status="SUCCESS")
        loops = []

        async def send(file_name: str, job_id: str, status: str) -> bool:
            loops.append(asyncio.get_running_loop())
            return True

        assert (await jobrota.autosys_update_runner_async(send)).delivered == 1
        assert loops == [asyncio.get_running_loop()]
        assert [row.job_id for row in await jobrota.fetch_unprocessed_updates_async()] == ["B"]
        await jobrota.update_autosys_flag_async("b.sas", "B")
        assert await jobrota.fetch_unprocessed_updates_async() == []
        with pytest.raises(jobrota.InvalidInputError, match="file_name"):
            await jobrota.log_job_execution_async("", "A", "SUCCESS")

    asyncio.run(work())
    assert jobrota.ping_test_async.__name__ == "ping_test_async"
    assert inspect.signature(jobrota.ping_test_async) == inspect.signature(jobrota.ping_test)


def test_twins_of_reports(tmp_path: Path) -> None:
    from jobrota import report

    async def work() -> None:
        result = jobrota.ComparisonResult.from_table(recorded())
        path = await report.write_async(result, tmp_path / "report.html", title="Title")
        view = await report.show_async(result, height=500)
        assert "Title" in path.read_text(encoding="utf-8")
        assert view.height == 500

    asyncio.run(work())


def test_the_twins_of_the_ledger(ledger: jobrota.JobLedger) -> None:
    from arro3.core import Array, DataType, Table

    values = {"file_name": "a.sas", "job_id": "A", "status": "SUCCESS"}
    batch = Table.from_pydict({name: Array([value], DataType.string()) for name, value in values.items()})

    async def work() -> None:
        assert await ledger.log_executions_async(batch) == 1
        assert await ledger.log_notifications_async(batch) == 1
        assert column(await ledger.executions_async(job_id="A"), "status") == ["SUCCESS"]
        assert column(await ledger.notifications_async(flag="NO"), "status") == ["SUCCESS"]
        assert (await ledger.pending_executions_async(limit=1)).num_rows == 1
        assert await ledger.update_autosys_flag_async("a.sas", "A") == 1
        assert (await ledger.pending_executions_async()).num_rows == 0
        assert (await jobrota.AutosysUpdater(ledger, lambda *row: True).run_async()).delivered == 1
        assert column(await ledger.deliveries_async(), "outcome") == column(ledger.deliveries(), "outcome")
        report = await jobrota.doctor_async(ledger=ledger)
        assert any(check.area == "ledger" for check in report.checks)

    asyncio.run(work())


def test_pending_executions_has_another_name(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    ledger.log_job_execution("b.sas", "B", "SUCCESS")
    for read in (ledger.pending_executions, ledger.fetch_unprocessed_updates):
        assert column(read(), "job_id") == ["A", "B"]
        assert column(read(limit=1), "job_id") == ["A"]
        assert column(read(job_id="B"), "file_name") == ["b.sas"]
    assert asyncio.run(ledger.fetch_unprocessed_updates_async(limit=1)).num_rows == 1


def test_track_works_with_async_with(ledger: jobrota.JobLedger) -> None:
    async def work() -> None:
        async with ledger.track("a.sas", "A") as tracked:
            assert (tracked.file_name, tracked.job_id) == ("a.sas", "A")
            await asyncio.sleep(0)
        with pytest.raises(ValueError, match="on purpose"):
            async with ledger.track("b.sas", "B"):
                raise ValueError("on purpose")

    asyncio.run(work())
    assert column(ledger.pending_executions(), "status") == ["SUCCESS", "FAILURE"]
    assert column(ledger.pending_notifications(), "status") == ["SUCCESS", "FAILURE"]


def test_async_transport_uses_callers_loop(ledger: jobrota.JobLedger) -> None:
    seen: list[object] = []

    async def work(updater: jobrota.AutosysUpdater) -> None:
        lock = asyncio.Lock()

        async def locked() -> None:
            async with lock:
                await asyncio.sleep(0)

        shared["use"] = locked
        assert (await updater.run_async()).delivered == 3
        assert seen == [asyncio.get_running_loop()] * 3

    shared: dict[str, Any] = {}

    async def send(file_name: str, job_id: str, status: str) -> bool:
        seen.append(asyncio.get_running_loop())
        await shared["use"]()
        return True

    updater = jobrota.AutosysUpdater(ledger, send)
    for _ in range(2):
        seen.clear()
        for job in "ABC":
            ledger.log_job_completion("a.sas", job, "SUCCESS")
        asyncio.run(work(updater))

    # Without an event loop of the caller, it runs on one of the package's own, as before.
    async def nothing() -> None:
        pass

    seen.clear()
    shared["use"] = nothing
    ledger.log_job_completion("a.sas", "D", "SUCCESS")
    assert updater.run().delivered == 1
    assert len(seen) == 1


def test_canceled_cycle_ends_async_transport_in_order(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    ledger.log_job_completion("a.sas", "A", "FAILURE")

    async def work() -> None:
        began = asyncio.Event()

        async def send(file_name: str, job_id: str, status: str) -> bool:
            began.set()
            await asyncio.sleep(0.2)
            return True

        cycle = asyncio.ensure_future(jobrota.AutosysUpdater(ledger, send).run_async())
        await began.wait()
        cycle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cycle

    asyncio.run(work())
    assert column(ledger.pending_notifications(), "status") == ["FAILURE"]
    assert column(ledger.deliveries(), "outcome").count("delivered") == 1


def test_run_forever_can_be_awaited(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    reports: list[jobrota.DeliveryReport] = []

    async def work() -> None:
        updater = jobrota.AutosysUpdater(ledger, lambda *row: True)
        forever = asyncio.ensure_future(updater.run_forever_async("20ms", on_report=reports.append))
        while len(reports) < 2:
            await asyncio.sleep(0.01)
        forever.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forever

    asyncio.run(work())
    assert [report.delivered for report in reports[:2]] == [1, 0]


def test_the_twins_of_a_result(sandbox: jobrota.Sandbox, tmp_path: Path) -> None:
    runner = jobrota.ViyaComparisonRunner(
        sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, limit_jobs=1, async_only=True, results_dir=tmp_path
    )

    async def work() -> None:
        result = await runner.run_async()
        path = await result.save_async(tmp_path / "copy.json")
        assert (await jobrota.ComparisonResult.load_async(path)).failed_jobs == 0
        assert await result.append_to_async(tmp_path / "history") == 1
        assert (await jobrota.comparison_history_async(tmp_path / "history")).num_rows == 1
        assert (await result.to_excel_async(tmp_path / "result.xlsx")).exists()
        assert (await result.report_async(tmp_path / "result.html")).exists()

    asyncio.run(work())


def test_a_sandbox_works_with_async_with() -> None:
    async def work() -> None:
        async with jobrota.Sandbox(viya=False, autosys=False, vms=1, vms_down=0) as sandbox:
            assert len(sandbox.inventory) == 1
        await sandbox.close_async()
        assert repr(sandbox) == "Sandbox(closed)"

    asyncio.run(work())


def test_the_twins_of_a_session(sandbox: jobrota.Sandbox) -> None:
    from jobrota.viya import ViyaSession

    async def work() -> None:
        session = ViyaSession(sandbox.viya_url, tokens=sandbox.tokens)
        assert await session.token_async() == session.token()
        assert await session.whoami_async() == session.whoami()
        assert await session.definitions_async("cm_*") == session.definitions("cm_*")
        assert await session.contexts_async() == session.contexts()

    asyncio.run(work())


def test_a_send_canceled_by_its_loop_is_in_doubt(ledger: jobrota.JobLedger) -> None:
    """At its end, asyncio.run cancels every task of its loop, and with them the sends that have begun."""
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    sending = threading.Event()

    async def send(*_row: str) -> bool:
        sending.set()
        await asyncio.sleep(60)
        return True

    async def main() -> None:
        task = asyncio.ensure_future(jobrota.AutosysUpdater(ledger, send).run_async())
        await asyncio.to_thread(sending.wait)
        assert not task.done()

    asyncio.run(main())
    assert set(column(ledger.deliveries(), "outcome")) <= {"sending", "unknown"}
    assert ledger.pending_notifications().num_rows == 1
