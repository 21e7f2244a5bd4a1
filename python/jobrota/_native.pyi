"""Types of the native module. Descriptions live with the implementation: `help(jobrota.JobLedger)`."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, final, overload
from zoneinfo import ZoneInfo

from arro3.core.types import ArrowArrayExportable, ArrowStreamExportable

from jobrota.errors import InvalidInputError
from jobrota.storage_options import StorageOptions, TokenCredential
from jobrota.table import Table

__all__ = [
    "Arm",
    "AutosysUpdater",
    "CodeLogin",
    "ComparisonResult",
    "ComparisonWarning",
    "Credentials",
    "DeliveryReport",
    "ImportReport",
    "Inventory",
    "JobLedger",
    "LedgerSummary",
    "MaintenanceReport",
    "Rehearsal",
    "RoundRobinSelector",
    "RunCommand",
    "Sandbox",
    "Selection",
    "SendEvent",
    "Ssh",
    "Track",
    "ViyaComparisonRunner",
    "ViyaSession",
    "WebServices",
    "WebhookPost",
    "__version__",
    "comparison_history",
    "comparison_history_async",
    "doctor",
    "duration_seconds",
    "journal_base_url",
    "sandbox_calibration",
    "scrubbed",
    "setting_missing",
    "settings_lookup",
    "shown_url",
    "viya_base_url",
    "webhook_host",
]

__version__: str

_Tokens: TypeAlias = "_Location | Credentials | Mapping[str, Any] | Callable[[], str | Mapping[str, Any]]"
_Arrow: TypeAlias = ArrowArrayExportable | ArrowStreamExportable
_Location: TypeAlias = str | PathLike[str]
_Duration: TypeAlias = float | str | timedelta
_Inventory: TypeAlias = Inventory | _Location | Sequence[str] | Sequence[Mapping[str, Any]] | Mapping[str, Any]
_ProbeFunction: TypeAlias = Callable[[str], tuple[str | None, str | None]]
_Probe: TypeAlias = str | _ProbeFunction | Sequence[str | _ProbeFunction]
_SendFunction: TypeAlias = Callable[[str, str, str], bool] | Callable[[str, str, str], Awaitable[bool]]
_AzureToken: TypeAlias = str | tuple[str, float | datetime | None]

_AzureCredential: TypeAlias = Mapping[str, str] | Callable[[], _AzureToken] | TokenCredential
_Checks: TypeAlias = tuple[bool, list[tuple[str, str, str, str, str | None]]]
_TableName: TypeAlias = Literal["job_notifications", "autosys_job_log"]

def duration_seconds(duration: _Duration) -> float:
    """The seconds of a duration: a number of seconds, text such as "1h30m", or a timedelta."""

def scrubbed(text: str, secrets: Sequence[str]) -> str:
    """`text` without `secrets`, however they are written."""

def webhook_host(url: str) -> str:
    """The host of a webhook's URL, which is checked. An error shows no part of the URL."""

def setting_missing(name: str, ways: str) -> InvalidInputError:
    """The error for a setting that is needed and not set. `ways` says what is missing, and how to give it."""

def settings_lookup(name: str) -> str | None:
    """The value of the environment variable JOBROTA_<NAME>, else of `name` in jobrota.toml, else None."""

def viya_base_url(given: str | None = None) -> str | None:
    """The server that `given`, the settings, the environment or the profile of sas-viya name, else None."""

def journal_base_url(path: str, given: str | None = None) -> str:
    """The server of the run that wrote a journal."""

def shown_url(url: str) -> str:
    """`url` without user name, password and query."""

@overload
def doctor(
    *,
    ledger: JobLedger | _Location | None = None,
    storage_options: StorageOptions | None = None,
    inventory: _Inventory | None = None,
    probes: Sequence[str] = ...,
    timeout: _Duration = 1.0,
    network: bool = False,
    tokens: _Location | None = None,
    configured: dict[str, Any] | None = None,
    asynchronous: Literal[False] = False,
) -> _Checks:
    """Whether no necessary check failed, and the checks: area, name, status, detail, advice."""

@overload
def doctor(
    *,
    ledger: JobLedger | _Location | None = None,
    storage_options: StorageOptions | None = None,
    inventory: _Inventory | None = None,
    probes: Sequence[str] = ...,
    timeout: _Duration = 1.0,
    network: bool = False,
    tokens: _Location | None = None,
    configured: dict[str, Any] | None = None,
    asynchronous: Literal[True],
) -> Coroutine[Any, Any, _Checks]: ...

# ---------------------------------------------------------------------------------------------------- selection

@final
class Inventory:
    def __new__(cls, vms: _Inventory) -> Inventory: ...
    @staticmethod
    def from_azure(
        subscription_id: str,
        resource_group: str | None = None,
        vm_names: Sequence[str] | None = None,
        backend_pool: str | None = None,
        credential: _AzureCredential | None = None,
        *,
        endpoint: str | None = None,
        power_state: Literal["running", "any"] | None = None,
        max_age: _Duration = 300.0,
        max_stale: _Duration = 86400.0,
        timeout: _Duration = 60.0,
    ) -> Inventory: ...
    @staticmethod
    def from_azure_async(
        subscription_id: str,
        resource_group: str | None = None,
        vm_names: Sequence[str] | None = None,
        backend_pool: str | None = None,
        credential: _AzureCredential | None = None,
        *,
        endpoint: str | None = None,
        power_state: Literal["running", "any"] | None = None,
        max_age: _Duration = 300.0,
        max_stale: _Duration = 86400.0,
        timeout: _Duration = 60.0,
    ) -> Coroutine[Any, Any, Inventory]: ...
    @property
    def source(self) -> str | None:
        """What was listed; None when the VMs were given by the caller."""
    @property
    def listed_at(self) -> datetime | None: ...
    @property
    def age(self) -> float | None:
        """Seconds since it was listed."""
    @property
    def remembered(self) -> bool: ...
    @property
    def left_out(self) -> dict[str, str]:
        """VMs that were listed but are not in the inventory, each with the reason."""
    @property
    def names(self) -> list[str]: ...
    @property
    def vms(self) -> list[dict[str, Any]]:
        """One dict per VM: name, ip_address, nic_name, weight."""
    def __len__(self) -> int: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

@final
class Selection:
    @property
    def vm(self) -> str: ...
    @property
    def ip_address(self) -> str: ...
    @property
    def nic_name(self) -> str: ...
    @property
    def probe(self) -> str: ...
    @property
    def rtt_ms(self) -> float: ...
    @property
    def skipped(self) -> dict[str, str]:
        """VMs that were due earlier but could not be selected, each with the reason."""
    def release(self) -> None: ...
    def release_async(self) -> Coroutine[Any, Any, None]: ...
    def __enter__(self) -> Selection: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...
    def __aenter__(self) -> Coroutine[Any, Any, Selection]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Coroutine[Any, Any, None]: ...
    def __iter__(self) -> Iterator[str]:
        """Yields vm, ip_address, nic_name."""
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> str: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

@final
class RoundRobinSelector:
    def __new__(
        cls,
        inventory: _Inventory,
        *,
        cursor: _Location | JobLedger | None = None,
        probe: _Probe | None = None,
        timeout: _Duration = 1.0,
        health_ttl: _Duration = 0.0,
        rise: int = 1,
        fall: int = 1,
        health_max_age: _Duration = 3600.0,
        max_in_flight: int | None = None,
        hold_ttl: _Duration = 60.0,
        storage_options: StorageOptions | None = None,
    ) -> RoundRobinSelector: ...
    @property
    def inventory(self) -> Inventory: ...
    @property
    def cursor(self) -> str:
        """Where the cursor is kept: "process" or the directory or URI of the shared one."""
    def select(self, *, exclude: Sequence[str] | None = None) -> Selection: ...
    def select_async(self, *, exclude: Sequence[str] | None = None) -> Coroutine[Any, Any, Selection]: ...
    def select_many(self, n: int) -> list[Selection]: ...
    def select_many_async(self, n: int) -> Coroutine[Any, Any, list[Selection]]: ...
    def report(self, vm: str, ok: bool) -> None: ...
    def report_async(self, vm: str, ok: bool) -> Coroutine[Any, Any, None]: ...
    def drain(self, vm: str) -> None: ...
    def drain_async(self, vm: str) -> Coroutine[Any, Any, None]: ...
    def restore(self, vm: str) -> None: ...
    def restore_async(self, vm: str) -> Coroutine[Any, Any, None]: ...
    def state(self) -> Table:
        """Columns: vm, weight, drained, healthy, in_flight."""
    def state_async(self) -> Coroutine[Any, Any, Table]: ...
    def check(self) -> Table:
        """Columns: vm, ip_address, nic_name, reachable, probe, rtt_ms, reason. Moves no cursor."""
    def check_async(self) -> Coroutine[Any, Any, Table]: ...
    def distribution(self, since: datetime | None = None) -> Table:
        """Columns: vm, selections, share, last_selected."""
    def distribution_async(self, since: datetime | None = None) -> Coroutine[Any, Any, Table]: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

# ------------------------------------------------------------------------------------------------------- ledger

@final
class Track:
    @property
    def file_name(self) -> str: ...
    @property
    def job_id(self) -> str: ...
    def __enter__(self) -> Track: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]: ...
    def __aenter__(self) -> Coroutine[Any, Any, Track]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Coroutine[Any, Any, None]: ...
    def __repr__(self) -> str: ...

@final
class LedgerSummary:
    @property
    def root(self) -> str: ...
    @property
    def made_at(self) -> datetime: ...
    @property
    def source(self) -> _TableName:
        """The table whose rows are delivered."""
    @property
    def pending(self) -> int: ...
    @property
    def pending_by_status(self) -> dict[str, int]: ...
    @property
    def pending_by_age(self) -> dict[str, int]:
        """under_15m, 15m_to_1h, 1h_to_24h, over_24h."""
    @property
    def oldest_pending(self) -> datetime | None: ...
    @property
    def parked(self) -> int: ...
    @property
    def retrying(self) -> int: ...
    @property
    def next_retry(self) -> datetime | None: ...
    @property
    def unnotified(self) -> int: ...
    @property
    def since(self) -> datetime: ...
    @property
    def success_rate(self) -> float | None: ...
    @property
    def executions(self) -> dict[str, Any]:
        """rows, pending, acknowledged, other_flags, pending_by_status {status: n}, pending_by_age {age: n},
        oldest_pending datetime | None, parked, retrying, next_retry datetime | None."""
    @property
    def notifications(self) -> dict[str, Any]:
        """The same keys as `executions`."""
    @property
    def attempts(self) -> dict[str, int]:
        """Recent delivery attempts by outcome."""
    def to_dict(self) -> dict[str, Any]: ...
    def to_prometheus(self) -> str: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

@final
class MaintenanceReport:
    @property
    def root(self) -> str: ...
    @property
    def tables(self) -> list[dict[str, Any]]:
        """One dict per table: table, version, files_before, files_after, files_compacted, files_written,
        rows_compacted, checkpoint, files_vacuumed, bytes_freed, log_entries_removed, notes, problems."""
    @property
    def files_compacted(self) -> int: ...
    @property
    def files_written(self) -> int: ...
    @property
    def files_vacuumed(self) -> int: ...
    @property
    def bytes_freed(self) -> int: ...
    @property
    def log_entries_removed(self) -> int: ...
    @property
    def problems(self) -> list[str]: ...
    def to_dict(self) -> dict[str, Any]: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

@final
class JobLedger:
    def __new__(
        cls,
        root: _Location,
        *,
        storage_options: StorageOptions | None = None,
        durability: Literal["store", "fsync"] = "store",
        commit_timeout: _Duration | None = None,
    ) -> JobLedger: ...
    @staticmethod
    def open_async(
        root: _Location,
        *,
        storage_options: StorageOptions | None = None,
        durability: Literal["store", "fsync"] = "store",
        commit_timeout: _Duration | None = None,
    ) -> Coroutine[Any, Any, JobLedger]: ...
    @property
    def root(self) -> str: ...
    @property
    def requests(self) -> dict[str, int]: ...
    def log_job_execution(
        self, file_name: str, job_id: str, status: str, *, execution_timestamp: datetime | None = None
    ) -> None: ...
    def log_job_execution_async(
        self, file_name: str, job_id: str, status: str, *, execution_timestamp: datetime | None = None
    ) -> Coroutine[Any, Any, None]: ...
    def log_job_completion(
        self, file_name: str, job_id: str, status: str, *, notification_timestamp: datetime | None = None
    ) -> None: ...
    def log_job_completion_async(
        self, file_name: str, job_id: str, status: str, *, notification_timestamp: datetime | None = None
    ) -> Coroutine[Any, Any, None]: ...
    def log_executions(self, rows: _Arrow) -> int: ...
    def log_executions_async(self, rows: _Arrow) -> Coroutine[Any, Any, int]: ...
    def log_notifications(self, rows: _Arrow) -> int: ...
    def log_notifications_async(self, rows: _Arrow) -> Coroutine[Any, Any, int]: ...
    def pending_executions(self, *, limit: int | None = None, job_id: str | None = None) -> Table: ...
    def pending_executions_async(
        self, *, limit: int | None = None, job_id: str | None = None
    ) -> Coroutine[Any, Any, Table]: ...
    def fetch_unprocessed_updates(self, *, limit: int | None = None, job_id: str | None = None) -> Table: ...
    def fetch_unprocessed_updates_async(
        self, *, limit: int | None = None, job_id: str | None = None
    ) -> Coroutine[Any, Any, Table]: ...
    def pending_notifications(self, *, limit: int | None = None, job_id: str | None = None) -> Table: ...
    def pending_notifications_async(
        self, *, limit: int | None = None, job_id: str | None = None
    ) -> Coroutine[Any, Any, Table]: ...
    def update_autosys_flag(self, file_name: str, job_id: str) -> int: ...
    def update_autosys_flag_async(self, file_name: str, job_id: str) -> Coroutine[Any, Any, int]: ...
    def acknowledge(self, rows: _Arrow, *, table: _TableName = "job_notifications") -> int: ...
    def acknowledge_async(
        self, rows: _Arrow, *, table: _TableName = "job_notifications"
    ) -> Coroutine[Any, Any, int]: ...
    def executions(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        job_id: str | None = None,
        status: str | None = None,
        flag: str | None = None,
    ) -> Table: ...
    def executions_async(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        job_id: str | None = None,
        status: str | None = None,
        flag: str | None = None,
    ) -> Coroutine[Any, Any, Table]: ...
    def notifications(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        job_id: str | None = None,
        status: str | None = None,
        flag: str | None = None,
    ) -> Table: ...
    def notifications_async(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        job_id: str | None = None,
        status: str | None = None,
        flag: str | None = None,
    ) -> Coroutine[Any, Any, Table]: ...
    def deliveries(self, *, since: datetime | None = None, until: datetime | None = None) -> Table: ...
    def deliveries_async(
        self, *, since: datetime | None = None, until: datetime | None = None
    ) -> Coroutine[Any, Any, Table]: ...
    def summary(self, *, since: datetime | None = None) -> LedgerSummary: ...
    def summary_async(self, *, since: datetime | None = None) -> Coroutine[Any, Any, LedgerSummary]: ...
    def parked(self, *, table: _TableName = "job_notifications") -> Table:
        """The columns that make a row of the table, and attempts, reason, parked_at, transport."""
    def parked_async(self, *, table: _TableName = "job_notifications") -> Coroutine[Any, Any, Table]: ...
    def redrive(
        self,
        rows: _Arrow | None = None,
        *,
        job_id: str | None = None,
        reason: str | None = None,
        by: str | None = None,
        table: _TableName = "job_notifications",
    ) -> int: ...
    def redrive_async(
        self,
        rows: _Arrow | None = None,
        *,
        job_id: str | None = None,
        reason: str | None = None,
        by: str | None = None,
        table: _TableName = "job_notifications",
    ) -> Coroutine[Any, Any, int]: ...
    def settle_by_hand(
        self,
        rows: _Arrow,
        *,
        reason: str,
        delivered: bool,
        by: str | None = None,
        table: _TableName = "job_notifications",
    ) -> int: ...
    def settle_by_hand_async(
        self,
        rows: _Arrow,
        *,
        reason: str,
        delivered: bool,
        by: str | None = None,
        table: _TableName = "job_notifications",
    ) -> Coroutine[Any, Any, int]: ...
    def executions_without_notification(self, *, older_than: _Duration = "1h") -> Table: ...
    def executions_without_notification_async(self, *, older_than: _Duration = "1h") -> Coroutine[Any, Any, Table]: ...
    def import_json(
        self, folder: _Location, *, fields: Mapping[str, str] | None = None, timezone: str | ZoneInfo | None = None
    ) -> ImportReport: ...
    def import_json_async(
        self, folder: _Location, *, fields: Mapping[str, str] | None = None, timezone: str | ZoneInfo | None = None
    ) -> Coroutine[Any, Any, ImportReport]: ...
    def maintain(self, *, retain_hours: _Duration = 168.0) -> MaintenanceReport: ...
    def maintain_async(self, *, retain_hours: _Duration = 168.0) -> Coroutine[Any, Any, MaintenanceReport]: ...
    def track(self, file_name: str, job_id: str) -> Track: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

@final
class ImportReport:
    @property
    def folder(self) -> Path: ...
    @property
    def files(self) -> int: ...
    @property
    def imported(self) -> int: ...
    @property
    def known(self) -> int: ...
    @property
    def bad(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def bad_records(self) -> int: ...
    @property
    def ambiguous_times(self) -> int: ...
    @property
    def ignored(self) -> dict[str, int]:
        """How many entries of the folder were not read, by the reason."""
    @property
    def failures(self) -> list[dict[str, Any]]:
        """The failures: dicts of file, line, record and reason; at most 20 of a file."""
    def to_dict(self) -> dict[str, Any]: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

# ------------------------------------------------------------------------------------------------------ AutoSys

@final
class SendEvent:
    def __new__(
        cls,
        program: _Location | None = None,
        *,
        timeout: _Duration = 60.0,
        env: Mapping[str, str] | None = None,
        env_file: _Location | None = None,
        autostatus: _Location | None = None,
        comment: str | None = None,
    ) -> SendEvent: ...
    @property
    def program(self) -> str: ...
    def __repr__(self) -> str: ...

@final
class WebhookPost:
    """An alert that is being posted, in the background."""

    def __new__(cls, url: str, body: str, secrets: Sequence[str], timeout: _Duration) -> WebhookPost: ...
    def is_taken(self) -> bool:
        """Whether the receiver took it. False: it is still under way."""

@final
class WebServices:
    def __new__(
        cls,
        base_url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        prefix: str = "event",
        events: Mapping[str, str] | None = None,
        comment: str | None = None,
        ca_file: _Location | None = None,
        timeout: _Duration = 30.0,
        status_path: str | None = "job-run-info/{job}",
        accepted: Sequence[int] | None = None,
        allow_http: bool = False,
    ) -> WebServices: ...
    @property
    def base_url(self) -> str: ...
    def __repr__(self) -> str: ...

@final
class Ssh:
    def __new__(
        cls,
        selector: RoundRobinSelector,
        *,
        user: str,
        port: int = 22,
        key_file: _Location | None = None,
        key_passphrase: str | None = None,
        agent: _Location | None = None,
        known_hosts: _Location | None = None,
        program: str = "sendevent",
        autostatus: str | None = "autostatus",
        env_file: str | None = None,
        run_as: str | None = None,
        comment: str | None = None,
        connect_timeout: _Duration = 10,
        timeout: _Duration = 60,
        sessions: int = 8,
        batch: int = 32,
    ) -> Ssh: ...
    def __repr__(self) -> str: ...

@final
class RunCommand:
    def __new__(
        cls,
        selector: RoundRobinSelector,
        *,
        subscription_id: str,
        resource_group: str | None = None,
        credential: _AzureCredential | None = None,
        endpoint: str | None = None,
        program: str = "sendevent",
        env_file: str | None = None,
        autostatus: str | None = None,
        run_as: str | None = None,
        comment: str | None = None,
        batch: int = 20,
        event_timeout: _Duration = 60.0,
        busy_timeout: _Duration = 600.0,
        timeout: _Duration = 5400.0,
    ) -> RunCommand: ...
    @property
    def subscription_id(self) -> str: ...
    def __repr__(self) -> str: ...

@final
class Rehearsal:
    def __new__(cls, *, answer_after: _Duration = 0) -> Rehearsal: ...
    def __repr__(self) -> str: ...

@final
class DeliveryReport:
    @property
    def delivered(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def superseded(self) -> int: ...
    @property
    def parked(self) -> int: ...
    @property
    def expired(self) -> int: ...
    @property
    def unknown(self) -> int: ...
    @property
    def recovered(self) -> int:
        """Rows that an earlier cycle delivered before it ended early; acknowledged now, not sent again."""
    @property
    def settled(self) -> int:
        """Executions whose flag was set together with the notifications delivered in this cycle."""
    @property
    def pending(self) -> int:
        """Rows of the source table that are still NO after this cycle."""
    @property
    def waiting(self) -> int: ...
    @property
    def held_back(self) -> int: ...
    @property
    def not_tried(self) -> int: ...
    @property
    def next_try(self) -> datetime | None: ...
    @property
    def snoozed_until(self) -> datetime | None: ...
    @property
    def stopped(self) -> bool: ...
    @property
    def lease_held_by(self) -> str | None: ...
    @property
    def dry_run(self) -> bool: ...
    @property
    def failures(self) -> list[dict[str, Any]]:
        """One dict per row not delivered: file_name, job_id, status, timestamp, attempt, outcome, detail."""
    @property
    def planned(self) -> list[dict[str, Any]]:
        """The rows that a dry run would have sent: file_name, job_id, status, timestamp, action."""
    def to_dict(self) -> dict[str, Any]: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

@final
class AutosysUpdater:
    def __new__(
        cls,
        ledger: JobLedger,
        transport: SendEvent | Ssh | RunCommand | WebServices | Rehearsal | _SendFunction,
        *,
        source: _TableName = "job_notifications",
        mapping: str | Mapping[str, str] | None = None,
        max_attempts: int | None = None,
        order: Literal["per_job", "latest", "none"] = "per_job",
        concurrency: int = 8,
        thread_safe: bool = False,
        send_timeout: _Duration | None = None,
        backoff: bool | _Duration | Mapping[str, Any] | None = None,
        rate: float | None = None,
        stale_after: _Duration | None = None,
        lease_ttl: _Duration = 30,
        confirm: bool | str | timedelta | None = None,
        first: Iterable[str] | None = None,
        priority: Iterable[str] | None = None,
        snooze: str | Iterable[str] | None = None,
        dry_run: bool = False,
    ) -> AutosysUpdater:
        """`mapping`: "CHANGE_STATUS", "STARTJOB" (SUCCESS starts, FAILURE changes the status), or {status: event} where
        the event is "STARTJOB", "FORCE_STARTJOB" or "CHANGE_STATUS <status>"."""
    def run(self) -> DeliveryReport: ...
    def run_async(self) -> Coroutine[Any, Any, DeliveryReport]: ...
    def run_forever(
        self, every: _Duration = "15m", *, on_report: Callable[[DeliveryReport], object] | None = None
    ) -> DeliveryReport | None: ...
    def run_forever_async(
        self, every: _Duration = "15m", *, on_report: Callable[[DeliveryReport], object] | None = None
    ) -> Coroutine[Any, Any, DeliveryReport | None]: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

# --------------------------------------------------------------------------------------------------- comparison

@final
class ComparisonWarning:
    @property
    def code(self) -> str: ...
    @property
    def text(self) -> str: ...
    def __repr__(self) -> str: ...

@final
class ComparisonResult:
    @staticmethod
    def from_table(table: _Arrow, *, host_price: float | None = None) -> ComparisonResult: ...
    @staticmethod
    def load(path: _Location) -> ComparisonResult: ...
    @staticmethod
    def load_async(path: _Location) -> Coroutine[Any, Any, ComparisonResult]: ...
    @property
    def path(self) -> Path | None:
        """The result JSON; None while the result was not written."""
    def save(self, path: _Location) -> Path: ...
    def save_async(self, path: _Location) -> Coroutine[Any, Any, Path]: ...
    def to_excel(self, path: _Location) -> Path: ...
    def to_excel_async(self, path: _Location) -> Coroutine[Any, Any, Path]: ...
    def append_to(self, root: _Location, storage_options: StorageOptions | None = None) -> int: ...
    def append_to_async(
        self, root: _Location, storage_options: StorageOptions | None = None
    ) -> Coroutine[Any, Any, int]: ...
    def report(
        self,
        path: _Location | None = None,
        *,
        title: str | None = None,
        images: _Location | None = None,
        formats: str | Sequence[str] = ("png", "svg"),
    ) -> Path: ...
    def report_async(
        self,
        path: _Location | None = None,
        *,
        title: str | None = None,
        images: _Location | None = None,
        formats: str | Sequence[str] = ("png", "svg"),
    ) -> Coroutine[Any, Any, Path]: ...
    @property
    def warnings(self) -> list[ComparisonWarning]: ...
    @property
    def failed_jobs(self) -> int:
        """Jobs of all arms that did not complete."""
    def to_dict(self) -> dict[str, Any]:
        """What the result JSON holds."""
    def jobs(self) -> Table: ...
    def hosts(self) -> Table: ...
    def arms(self) -> Table: ...
    def phases(self) -> Table: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

def comparison_history(
    root: _Location, *, since: datetime | None = None, storage_options: StorageOptions | None = None
) -> Table: ...
def comparison_history_async(
    root: _Location, *, since: datetime | None = None, storage_options: StorageOptions | None = None
) -> Coroutine[Any, Any, Table]: ...

@final
class Credentials:
    @staticmethod
    def file(path: _Location) -> Credentials: ...
    @staticmethod
    def cli(profile: str | None = None) -> Credentials: ...
    @staticmethod
    def client_credentials(client_id: str, client_secret: str) -> Credentials: ...
    @staticmethod
    def password(
        user: str, password: str, *, client_id: str | None = None, client_secret: str | None = None
    ) -> Credentials: ...
    @staticmethod
    def environment() -> Credentials: ...
    @staticmethod
    def tokens(
        source: str | Mapping[str, Any] | Callable[[], str | Mapping[str, Any]],
        persist: Callable[[dict[str, Any]], object] | None = None,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
    ) -> Credentials: ...
    def __repr__(self) -> str: ...

@final
class CodeLogin:
    @property
    def url(self) -> str: ...
    def finish(self, code: str, path: _Location) -> None: ...
    def finish_async(self, code: str, path: _Location) -> Coroutine[Any, Any, None]: ...
    def __repr__(self) -> str: ...

@final
class ViyaSession:
    def __new__(
        cls,
        base_url: str | None = None,
        *,
        tokens: _Tokens | None = None,
        ca_bundle: _Location | None = None,
        proxy: str | None = None,
        verify: bool = True,
        connect_timeout: _Duration = 10.0,
        read_timeout: _Duration = 60.0,
    ) -> ViyaSession: ...
    def token(self) -> str: ...
    def token_async(self) -> Coroutine[Any, Any, str]: ...
    def whoami(self) -> dict[str, Any]: ...
    def whoami_async(self) -> Coroutine[Any, Any, dict[str, Any]]: ...
    def definitions(self, pattern: str) -> list[dict[str, Any]]: ...
    def definitions_async(self, pattern: str) -> Coroutine[Any, Any, list[dict[str, Any]]]: ...
    def contexts(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]: ...
    def contexts_async(self, names: Sequence[str] | None = None) -> Coroutine[Any, Any, list[dict[str, Any]]]: ...
    def save_login(self, path: _Location) -> None: ...
    def save_login_async(self, path: _Location) -> Coroutine[Any, Any, None]: ...
    def begin_login(self, client_id: str | None = None, client_secret: str | None = None) -> CodeLogin: ...
    def __repr__(self) -> str: ...

@final
class Arm:
    def __new__(
        cls,
        name: str,
        context: str,
        mode: Literal["sequential", "batch", "window", "all"] = "batch",
        concurrent: int = 5,
    ) -> Arm: ...
    @property
    def name(self) -> str: ...
    @property
    def context(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def concurrent(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __repr__(self) -> str: ...

@final
class ViyaComparisonRunner:
    def __new__(
        cls,
        base_url: str | None = None,
        *,
        tokens: _Tokens | None = None,
        jobs: _Location | None = None,
        mode: Literal["sequential", "batch", "window", "all"] = "batch",
        concurrent: int = 5,
        sequential_context: str | None = None,
        async_context: str | None = None,
        arms: Literal["three_way"] | _Location | Sequence[Arm | Mapping[str, Any] | tuple[Any, ...]] | None = None,
        limit_jobs: int | None = None,
        sequential_only: bool = False,
        async_only: bool = False,
        repeat: int = 1,
        results_dir: _Location | None = None,
        poll_interval: _Duration = 0.8,
        job_timeout: _Duration = 3600.0,
        correlation_timeout: _Duration = 60.0,
        pause: _Duration = 0.0,
        order: Literal["submission", "longest_first"] = "submission",
        durations_from: _Location | ComparisonResult | Mapping[str, _Duration] | None = None,
        expires_after: str | None = ...,  # "P7D"
        cleanup: bool = False,
        host_price: float | None = None,
        ca_bundle: _Location | None = None,
        proxy: str | None = None,
        verify: bool = True,
        connect_timeout: _Duration = 10.0,
        read_timeout: _Duration = 60.0,
        results_table: _Location | None = None,
        storage_options: StorageOptions | None = None,
        time_scale: float | None = None,
    ) -> ViyaComparisonRunner: ...
    def run(self, progress: bool | Callable[[dict[str, Any]], object] | None = None) -> ComparisonResult: ...
    def run_async(
        self, progress: Callable[[dict[str, Any]], object] | None = None
    ) -> Coroutine[Any, Any, ComparisonResult]: ...
    def resume(
        self, journal: _Location, progress: bool | Callable[[dict[str, Any]], object] | None = None
    ) -> ComparisonResult: ...
    def resume_async(
        self, journal: _Location, progress: Callable[[dict[str, Any]], object] | None = None
    ) -> Coroutine[Any, Any, ComparisonResult]: ...
    def describe(self) -> dict[str, Any]: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

# ------------------------------------------------------------------------------------------------------ sandbox

@final
class Sandbox:
    def __new__(
        cls,
        viya: bool = True,
        autosys: bool = True,
        vms: int = 4,
        vms_down: int = 1,
        speed: float = 1.0,
        *,
        refuse_first: Sequence[str] | None = None,
        fail_jobs: Sequence[str] | None = None,
        token_lifetime: _Duration = 3600.0,
        azure: bool = False,
        azure_throttle_first: int = 0,
        definitions: Mapping[str, _Duration] | None = None,
        hosts: Mapping[str, float] | None = None,
        long_poll: bool = True,
        list_filters: bool = True,
        orchestrator: Literal["normal", "missing", "forbidden", "unnamed"] = "normal",
        fault_rate: float = 0.0,
        reset_rate: float = 0.0,
        seed: int = 1,
    ) -> Sandbox: ...
    def viya_requests(self) -> dict[str, int]: ...
    def viya_jobs(self) -> list[dict[str, Any]]: ...
    @property
    def viya_url(self) -> str: ...
    @property
    def autosys_url(self) -> str: ...
    @property
    def autosys_credentials(self) -> tuple[str, str]: ...
    @property
    def azure_url(self) -> str: ...
    @property
    def azure_subscription_id(self) -> str: ...
    @property
    def azure_resource_group(self) -> str: ...
    @property
    def azure_credential(self) -> dict[str, str]: ...
    def azure_token(self) -> str: ...
    def azure_requests(self) -> list[str]:
        """Method and path of every request to Azure Resource Manager, in order."""
    def set_azure_power(self, vm: str, state: str) -> None: ...
    def set_azure_run_command(self, vm: str, mode: str) -> None: ...
    def set_azure_output_limit(self, limit: int) -> None: ...
    def set_azure_public_url(self, url: str) -> None: ...
    def azure_scripts(self) -> list[tuple[str, str]]:
        """The scripts that Run Command ran: VM and script, in order."""
    @property
    def inventory(self) -> Inventory: ...
    @property
    def vms_down(self) -> list[str]: ...
    @property
    def probe(self) -> str: ...
    @property
    def tokens(self) -> Path:
        """Token file for `viya_url`."""
    @property
    def jobs(self) -> Path:
        """Job configuration file with the recorded run's 54 jobs."""
    @property
    def sendevent(self) -> Path: ...
    @property
    def autostatus(self) -> Path: ...
    @property
    def speed(self) -> float: ...
    def refuse_once(self, jobs: Sequence[str]) -> None: ...
    def autosys_events(self) -> list[dict[str, Any]]:
        """The events that AutoSys took, in order: at, via, event, job, status, comment."""
    def close(self) -> None: ...
    def close_async(self) -> Coroutine[Any, Any, None]: ...
    def __enter__(self) -> Sandbox: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __aenter__(self) -> Coroutine[Any, Any, Sandbox]: ...
    def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> Coroutine[Any, Any, None]: ...
    def __repr__(self) -> str: ...
    def _repr_html_(self) -> str: ...

def sandbox_calibration() -> list[dict[str, Any]]:
    """One dict per measure of each arm: arm, measure, recorded, sandbox, error_percent."""
