"""The functions that existing notebooks call, based on the classes.

`configure`, the environment (`JOBROTA_LEDGER`, …) or `jobrota.toml` set what they use:

>>> import tempfile
>>> import jobrota
>>> folder = tempfile.TemporaryDirectory()
>>> jobrota.configure(ledger=folder.name)
>>> jobrota.log_job_execution("daily.sas", "DAILY_LOAD", "SUCCESS")
>>> [(row.job_id, row.status) for row in jobrota.fetch_unprocessed_updates()]
[('DAILY_LOAD', 'SUCCESS')]
>>> jobrota.update_autosys_flag("daily.sas", "DAILY_LOAD")
>>> jobrota.fetch_unprocessed_updates()
[]
>>> jobrota.configure(ledger=None)
>>> folder.cleanup()
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from jobrota._native import (
    AutosysUpdater,
    DeliveryReport,
    Inventory,
    JobLedger,
    RoundRobinSelector,
    setting_missing,
    settings_lookup,
)
from jobrota.autosys import CHANGE_STATUS, SendEvent
from jobrota.errors import InvalidInputError, NotFoundError
from jobrota.table import NamedRow
from jobrota.tracing import DeliverySpans
from jobrota.twins import twin
from jobrota.webhook import VARIABLE, Alerts, Webhook

__all__ = [
    "Row",
    "autosys_update_runner",
    "autosys_update_runner_async",
    "configure",
    "configure_async",
    "fetch_unprocessed_updates",
    "fetch_unprocessed_updates_async",
    "log_job_completion",
    "log_job_completion_async",
    "log_job_execution",
    "log_job_execution_async",
    "ping_test",
    "ping_test_async",
    "select_reachable_vm",
    "select_reachable_vm_async",
    "update_autosys_flag",
    "update_autosys_flag_async",
]


class _Unset:
    """Means "leave unchanged"; None means "reset"."""

    def __repr__(self) -> str:
        return "<unchanged>"


_UNSET = _Unset()
_LOCK = threading.RLock()
_log = logging.getLogger("jobrota.notebook")
_configured: dict[str, Any] = {}
_ledgers: dict[str, JobLedger] = {}
_selectors: dict[tuple[str, ...], RoundRobinSelector] = {}
_missing_nic_warned = False


class _Execution(NamedTuple):
    file_name: str | None
    job_id: str | None
    execution_timestamp: datetime | None
    status: str | None
    autosys_update_flag: str | None


class Row(NamedRow, _Execution):
    """One row of `autosys_job_log`. Read a field as `row.job_id` or, as with Spark, as `row["job_id"]`."""

    __slots__ = ()


def configure(
    *,
    ledger: JobLedger | str | os.PathLike[str] | _Unset | None = _UNSET,
    inventory: Any = _UNSET,
    probe: Any = _UNSET,
    transport: Any = _UNSET,
    mapping: str | Mapping[str, str] | _Unset | None = _UNSET,
    webhook: Webhook | str | _Unset | None = _UNSET,
) -> None:
    """Sets what the notebook functions use. Omitted arguments stay unchanged; None returns to the settings.

    Args:
        ledger: A `JobLedger`, or the directory or URI of its tables.
        inventory: The source of VM addresses and NIC names: any argument of `Inventory`.
        probe: How a VM is checked: any probe of `RoundRobinSelector`.
        transport: A transport such as `autosys.SendEvent()`, the path of the `sendevent` program, a text as in the
            setting, such as `"ssh user=autosys"`, or a callable `(file_name, job_id, status) -> bool`.
        mapping: Ledger status to AutoSys event, as `AutosysUpdater` takes it.
        webhook: Where `autosys_update_runner` posts alerts: a `jobrota.webhook.Webhook`, or its URL.

    Raises:
        JobrotaError: The ledger's location, the inventory or the webhook is refused. Nothing was changed.
    """
    given: dict[str, Any] = {"inventory": inventory, "probe": probe, "transport": transport, "mapping": mapping}
    changes = {name: value for name, value in given.items() if value is not _UNSET}
    if not isinstance(ledger, _Unset):
        changes["ledger"] = ledger if ledger is None or isinstance(ledger, JobLedger) else os.fspath(ledger)
        if isinstance(changes["ledger"], str):
            JobLedger(changes["ledger"])  # raises here what it would raise at the first call
    if changes.get("inventory") is not None:
        changes["inventory"] = Inventory(changes["inventory"])
    if not isinstance(webhook, _Unset):
        changes["webhook"] = Webhook(webhook) if isinstance(webhook, str) else webhook
    with _LOCK:
        _configured.update(changes)
        _selectors.clear()


def select_reachable_vm(vm_list: Sequence[str]) -> tuple[str, str, str]:
    """Selects the next VM of `vm_list` that answers, in turn, and prints which one.

    Args:
        vm_list: Names (or addresses) of the VMs, in the order of their turns.

    Returns:
        The VM's name, its IP address, and the name of its Azure NIC resource ("" if no inventory names it).

    Raises:
        NoReachableVmError: None of them answered; `.failures` has the reason for each.
        InvalidInputError: `vm_list` is empty or names a VM twice.
    """
    vm, ip_address, nic_name = _selector(vm_list).select()
    print(f"Selected VM: {vm} (IP: {ip_address})")
    return vm, ip_address, _checked_nic(vm, nic_name)


def ping_test(vm: str) -> tuple[str, str] | tuple[None, None]:
    """Checks once whether `vm` answers. Turns do not change.

    Args:
        vm: Name (or address) of the VM.

    Returns:
        Its IP address and the name of its NIC resource, or `(None, None)` if it did not answer.

    Raises:
        InvalidInputError: `vm` is empty.
    """
    result = _selector([vm]).check()
    if not result["reachable"].to_pylist()[0]:
        return None, None
    return result["ip_address"].to_pylist()[0], _checked_nic(vm, result["nic_name"].to_pylist()[0] or "")


def log_job_execution(file_name: str, job_id: str, status: str) -> None:
    """Appends an execution, with flag NO and the current time, to `autosys_job_log`. It is durable on return.

    Args:
        file_name: The file that was run.
        job_id: The AutoSys job.
        status: Text of at most 1,024 bytes, kept as it is; AutoSys knows SUCCESS, FAILURE, TERMINATED, …

    Raises:
        JobrotaError: Nothing was written; `.retryable` says whether trying again can help.
    """
    _ledger().log_job_execution(file_name, job_id, status)


def log_job_completion(file_name: str, job_id: str, status: str) -> None:
    """Appends a notification, with flag NO and the current time, to `job_notifications`. It is durable on return.

    Args:
        file_name: The file that was run.
        job_id: The AutoSys job.
        status: Text of at most 1,024 bytes, kept as it is; AutoSys knows SUCCESS, FAILURE, TERMINATED, …

    Raises:
        JobrotaError: Nothing was written; `.retryable` says whether trying again can help.
    """
    _ledger().log_job_completion(file_name, job_id, status)


def fetch_unprocessed_updates() -> list[Row]:
    """Returns the executions whose flag is NO, oldest first.

    Before the first row is logged, there are none. Because the configured root can also be wrong, this is logged then.
    """
    try:
        table = _ledger().fetch_unprocessed_updates()
    except NotFoundError as error:
        if error.retryable:  # there was a ledger
            raise
        _log.warning("nothing is pending: %s", error)
        return []
    return [Row(*row) for row in table.select(Row._fields)]


def update_autosys_flag(file_name: str, job_id: str) -> None:
    """Sets every execution of this file and job whose flag is NO to YES.

    `AutosysUpdater` and `autosys_update_runner` acknowledge exactly the rows that were delivered. This function
    acknowledges all that are pending at the moment.

    Raises:
        NotFoundError: The ledger does not exist yet.
    """
    _ledger().update_autosys_flag(file_name, job_id)


def autosys_update_runner(
    send_autosys_update: Callable[[str, str, str], bool] | None = None, *, webhook: Webhook | str | None = None
) -> DeliveryReport:
    """Runs one delivery cycle: sends pending rows to AutoSys, and acknowledges the rows that AutoSys took.

    Args:
        send_autosys_update: `(file_name, job_id, status) -> bool`, where False or an exception means that the
            row was not delivered, and the next cycle tries again. None uses the configured transport.
        webhook: Where alerts are posted, instead of the configured webhook.

    Returns:
        The outcome of each row.

    Raises:
        NotFoundError: The ledger does not exist yet.
        InvalidInputError: No transport is configured, or only executions were logged: notifications are sent, unless
            the setting `source` is `autosys_job_log`.
    """
    with _alerts(webhook) as alerts, DeliverySpans(_ledger(), _source()) as spans:
        report = _updater(send_autosys_update).run()
        alerts.cycle(report, _source())
        spans.cycle(report)
    return report


async def autosys_update_runner_async(
    send_autosys_update: Callable[[str, str, str], bool] | Callable[[str, str, str], Awaitable[bool]] | None = None,
    *,
    webhook: Webhook | str | None = None,
) -> DeliveryReport:
    """Like `autosys_update_runner`, as a coroutine. An `async def` function runs on the event loop that awaits it."""
    async with _alerts(webhook) as alerts, DeliverySpans(_ledger(), _source()) as spans:
        updater = await twin(_updater)(send_autosys_update)
        report = await updater.run_async()
        alerts.cycle(report, _source())
        await twin(spans.cycle)(report)
    return report


configure_async = twin(configure)
select_reachable_vm_async = twin(select_reachable_vm)
ping_test_async = twin(ping_test)
log_job_execution_async = twin(log_job_execution)
log_job_completion_async = twin(log_job_completion)
fetch_unprocessed_updates_async = twin(fetch_unprocessed_updates)
update_autosys_flag_async = twin(update_autosys_flag)


def _updater(send_autosys_update: Any) -> AutosysUpdater:
    """Returns the updater with the configured settings. `send_autosys_update` replaces the configured transport."""
    ledger = _ledger()
    source = _source()
    if source not in ("job_notifications", "autosys_job_log"):
        raise InvalidInputError(f'the setting "source" is {source!r}; it can be job_notifications or autosys_job_log')
    if source == "job_notifications":
        summary = ledger.summary()
        waiting = summary.executions["pending"]
        if waiting and not summary.notifications["rows"]:
            raise InvalidInputError(
                f"{waiting} executions are pending, but log_job_completion was never called, and only notifications "
                "are sent. To send executions instead, set JOBROTA_SOURCE=autosys_job_log, or source = "
                '"autosys_job_log" in jobrota.toml'
            )
    transport = send_autosys_update if send_autosys_update is not None else _transport()
    mapping = _setting("mapping") or CHANGE_STATUS
    if source == "autosys_job_log":
        return AutosysUpdater(ledger, transport, source="autosys_job_log", mapping=mapping)
    return AutosysUpdater(ledger, transport, mapping=mapping)


def _source() -> str:
    return settings_lookup("source") or "job_notifications"


def _alerts(webhook: Webhook | str | None) -> Alerts:
    """Returns the alerts of a cycle: to the given webhook, else the configured one, else that of the environment."""
    if webhook is None:
        with _LOCK:
            webhook = _configured.get("webhook") or os.environ.get(VARIABLE) or None
    if webhook is None:
        return Alerts(None)
    return Alerts(Webhook(webhook) if isinstance(webhook, str) else webhook, _ledger())


def _setting(name: str) -> Any:
    with _LOCK:
        value = _configured.get(name)
    return settings_lookup(name) if value is None else value


def configured_settings() -> dict[str, Any]:
    """Returns the values that `configure` set, by name."""
    with _LOCK:
        return {name: value for name, value in _configured.items() if value is not None}


def _missing(name: str) -> InvalidInputError:
    return setting_missing(name, f"no {name} is configured: call jobrota.configure({name}=…)")


def _ledger() -> JobLedger:
    with _LOCK:
        ledger = _setting("ledger")
        if ledger is None:
            raise _missing("ledger")
        if isinstance(ledger, JobLedger):
            return ledger
        if ledger not in _ledgers:
            _ledgers[ledger] = JobLedger(ledger)
        return _ledgers[ledger]


def _forget_after_fork() -> None:
    """A forked child opens new objects, because objects from before the fork have no threads in it."""
    global _LOCK
    _LOCK = threading.RLock()
    _ledgers.clear()
    _selectors.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


def _transport() -> Any:
    # Only a process that delivers needs it, and what it imports.
    from jobrota.transport_settings import configured_transport, transport_from_text

    with _LOCK:
        transport = _configured.get("transport")
    if isinstance(transport, str):
        return transport_from_text(transport, _transport_selector)
    if isinstance(transport, os.PathLike):
        return SendEvent(program=transport)
    if transport is None and (transport := configured_transport(_transport_selector)) is None:
        raise _missing("transport")
    return transport


def _transport_selector() -> RoundRobinSelector:
    """Returns a selector of all VMs of the inventory, for a transport that sends through one of them."""
    inventory, ledger = _setting("inventory"), _setting("ledger")
    if inventory is None:
        raise _missing("inventory")
    return RoundRobinSelector(inventory, cursor="auto" if ledger is None else ledger, probe=_setting("probe") or "auto")


def _selector(vm_list: Sequence[str]) -> RoundRobinSelector:
    """Returns one selector per list of VMs, so that turns in this process continue from call to call."""
    if isinstance(vm_list, str):
        raise InvalidInputError(f"vm_list is one text, {vm_list!r}; give a list of VM names, such as [{vm_list!r}]")
    names = tuple(vm_list)
    with _LOCK:
        selector = _selectors.get(names)
        if selector is None:
            inventory = _setting("inventory")
            known = {} if inventory is None else {vm["name"]: vm for vm in Inventory(inventory).vms}
            entries: list[Mapping[str, Any]] = [known.get(name) or {"name": name} for name in names]
            ledger = _setting("ledger")
            cursor = "auto" if ledger is None else ledger
            selector = RoundRobinSelector(entries, cursor=cursor, probe=_setting("probe") or "auto")
            _selectors[names] = selector
        return selector


def _checked_nic(vm: str, nic_name: str) -> str:
    global _missing_nic_warned
    if not nic_name and not _missing_nic_warned:
        _missing_nic_warned = True
        warnings.warn(
            f'the NIC name of {vm!r} is "" because no inventory names it; see jobrota.configure(inventory=…)',
            stacklevel=3,
        )
    return nic_name
