"""Fair VM selection, a lossless job ledger for AutoSys and SAS Viya comparisons with evidence, for Databricks.

Four parts, each useful alone:

- selection: `RoundRobinSelector` selects the next reachable VM, in turn across every process that selects;
- ledger: `JobLedger` records job executions and notifications in Delta tables;
- AutoSys: `AutosysUpdater` delivers the pending rows of the ledger until each row is acknowledged;
- comparison: `ViyaComparisonRunner` runs the same SAS Viya jobs in different compute contexts and compares them.

`Sandbox` starts local stand-ins for SAS Viya, AutoSys and the VMs, so that you can try everything without them:

>>> import jobrota
>>> with jobrota.Sandbox(vms=3, vms_down=0) as sandbox:
...     selector = jobrota.RoundRobinSelector(sandbox.inventory, cursor="process", probe=sandbox.probe)
...     [selector.select().vm for _ in range(4)]
['vm1', 'vm2', 'vm3', 'vm1']

With the plugin `jobrota.pytest_plugin`, pytest would rewrite this package, and warn where it is imported before pytest
starts. PYTEST_DONT_REWRITE forbids it.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jobrota import autosys
from jobrota._native import (
    Arm,
    AutosysUpdater,
    ComparisonResult,
    ComparisonWarning,
    DeliveryReport,
    ImportReport,
    Inventory,
    JobLedger,
    LedgerSummary,
    MaintenanceReport,
    RoundRobinSelector,
    Selection,
    ViyaComparisonRunner,
    __version__,
    comparison_history,
    comparison_history_async,
)
from jobrota.errors import (
    AuthenticationError,
    ConflictError,
    DeliveryError,
    InternalError,
    InvalidInputError,
    JobrotaError,
    LeaseHeldError,
    MaintenanceWarning,
    MissingPackageError,
    NetworkError,
    NoReachableVmError,
    NotFoundError,
    ServerError,
    StorageError,
    UnsupportedError,
)
from jobrota.notebook import (
    Row,
    autosys_update_runner,
    autosys_update_runner_async,
    configure,
    configure_async,
    fetch_unprocessed_updates,
    fetch_unprocessed_updates_async,
    log_job_completion,
    log_job_completion_async,
    log_job_execution,
    log_job_execution_async,
    ping_test,
    ping_test_async,
    select_reachable_vm,
    select_reachable_vm_async,
    update_autosys_flag,
    update_autosys_flag_async,
)
from jobrota.table import Table

with suppress(ImportError):  # the Cargo feature `sandbox`
    from jobrota._native import Sandbox, sandbox_calibration

if TYPE_CHECKING:
    from jobrota import report as report
    from jobrota.checkup import Check, DoctorReport, doctor, doctor_async
    from jobrota.migration import MigrationReport, TableMigration, migrate, migrate_async
else:
    # Imported at their first use, because most programs never use them: they would double the time of the import.
    _MODULES = dict.fromkeys(("Check", "DoctorReport", "doctor", "doctor_async"), "checkup")
    _MODULES |= dict.fromkeys(("MigrationReport", "TableMigration", "migrate", "migrate_async"), "migration")

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name == "report":
            return import_module("jobrota.report")
        if name in _MODULES:
            value = globals()[name] = getattr(import_module(f"jobrota.{_MODULES[name]}"), name)
            return value
        if name in ("Sandbox", "sandbox_calibration"):
            raise AttributeError(f"this build has no {name}: build it with the Cargo feature sandbox")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES, "report"})


__all__ = [
    "Arm",
    "AuthenticationError",
    "AutosysUpdater",
    "Check",
    "ComparisonResult",
    "ComparisonWarning",
    "ConflictError",
    "DeliveryError",
    "DeliveryReport",
    "DoctorReport",
    "ImportReport",
    "InternalError",
    "InvalidInputError",
    "Inventory",
    "JobLedger",
    "JobrotaError",
    "LeaseHeldError",
    "LedgerSummary",
    "MaintenanceReport",
    "MaintenanceWarning",
    "MigrationReport",
    "MissingPackageError",
    "NetworkError",
    "NoReachableVmError",
    "NotFoundError",
    "RoundRobinSelector",
    "Row",
    "Sandbox",
    "Selection",
    "ServerError",
    "StorageError",
    "Table",
    "TableMigration",
    "UnsupportedError",
    "ViyaComparisonRunner",
    "__version__",
    "autosys",
    "autosys_update_runner",
    "autosys_update_runner_async",
    "comparison_history",
    "comparison_history_async",
    "configure",
    "configure_async",
    "doctor",
    "doctor_async",
    "fetch_unprocessed_updates",
    "fetch_unprocessed_updates_async",
    "log_job_completion",
    "log_job_completion_async",
    "log_job_execution",
    "log_job_execution_async",
    "migrate",
    "migrate_async",
    "ping_test",
    "ping_test_async",
    "sandbox_calibration",
    "select_reachable_vm",
    "select_reachable_vm_async",
    "update_autosys_flag",
    "update_autosys_flag_async",
]
__all__ = [name for name in __all__ if name not in ("Sandbox", "sandbox_calibration") or name in globals()]
