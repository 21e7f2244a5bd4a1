"""`jobrota.doctor()`: what works on this machine, why the rest does not, and how to solve it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from os import PathLike
from typing import Any

from jobrota._native import Inventory, JobLedger, settings_lookup
from jobrota._native import doctor as _examine
from jobrota.errors import InvalidInputError, JobrotaError
from jobrota.markup import element
from jobrota.storage_options import StorageOptions

__all__ = ["Check", "DoctorReport", "doctor", "doctor_async"]

SYMBOLS = {"ok": "✓", "note": "–", "warning": "!", "failed": "✗"}
TITLES = {
    "environment": "Where this is",
    "probes": "Probes",
    "vms": "VMs",
    "ledger": "Ledger root",
    "credentials": "Credentials",
    "settings": "Settings",
}
# Readable on white and on black. The symbol says the same without colour.
_COLORS = {"ok": "#2e9d5b", "note": "#888888", "warning": "#c77700", "failed": "#d6453d"}


@dataclass(frozen=True)
class Check:
    """One check. Its texts hold no secrets.

    Attributes:
        area: `environment`, `probes`, `vms`, `ledger`, `credentials` or `settings`.
        name: The subject of the check.
        status: `ok`; `note` (missing, but not necessary); `warning`; or `failed`.
        detail: The result.
        advice: How to solve the problem; every warning and failure has one.
    """

    area: str
    name: str
    status: str
    detail: str
    advice: str | None = None


@dataclass(frozen=True)
class DoctorReport:
    """The result of `doctor()`.

    Attributes:
        checks: All checks.
        ok: Whether no necessary check failed: the ledger's root (if one is set), the settings file, and at least one
            kind of probe, which at least one of the given VMs answers.
    """

    checks: list[Check]
    ok: bool

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values: `ok`, and `checks` as dicts."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def areas(self) -> Iterator[tuple[str, list[Check]]]:
        """The checks by area, with the area's title."""
        for area, title in TITLES.items():
            checks = [check for check in self.checks if check.area == area]
            if checks:
                yield title, checks

    def verdict(self) -> str:
        """A summary in one line."""
        failed = sum(check.status == "failed" for check in self.checks)
        warnings = sum(check.status == "warning" for check in self.checks)
        counts = f"{failed} failed, {warnings} with a warning"
        return f"jobrota can work here ({counts})" if self.ok else f"jobrota cannot do its work here ({counts})"

    def __str__(self) -> str:
        """The report as lines of text."""
        lines = []
        for title, checks in self.areas():
            lines.append(title)
            width = max(len(_plain(check.name)) for check in checks)
            for check in checks:
                lines.append(f"  {SYMBOLS[check.status]} {_plain(check.name):<{width}}  {_plain(check.detail)}")
                if check.advice:
                    lines.append(f"    {'':<{width}}  → {_plain(check.advice)}")
        return "\n".join([*lines, self.verdict()])

    def __repr__(self) -> str:
        """The verdict."""
        return f"DoctorReport(ok={self.ok}, checks={len(self.checks)})"

    def _repr_html_(self) -> str:
        cell = "text-align:left;vertical-align:top;padding:.1em 1em .1em 0"
        lines = []
        for title, checks in self.areas():
            head = element("th", title, colspan="3", scope="colgroup", style=f"{cell};padding-top:.6em")
            lines.append(element("tr", head))
            for check in checks:
                symbol = element("span", SYMBOLS[check.status], role="img", aria_label=check.status)
                detail: list[object] = [_plain(check.detail)]
                if check.advice:
                    detail.append(element("div", f"→ {_plain(check.advice)}", style="opacity:.75"))
                row = (
                    element("td", symbol, style=f"{cell};color:{_COLORS[check.status]};font-weight:600"),
                    element("td", _plain(check.name), style=f"{cell};white-space:nowrap"),
                    element("td", *detail, style=cell),
                )
                lines.append(element("tr", *row))
        verdict = element("span", self.verdict(), style=f"color:{_COLORS['ok' if self.ok else 'failed']}")
        return element(
            "div",
            element("div", "Doctor: ", verdict, style="font-weight:600;margin-bottom:.2em"),
            element("table", *lines, style="margin:0;border-collapse:collapse"),
            style="display:inline-block;border:1px solid rgba(128,128,128,.4);border-radius:6px;"
            "padding:.6em .9em;margin:.2em 0",
        )


def doctor(
    vms: Sequence[str] | None = None,
    *,
    inventory: Any = None,
    ledger: JobLedger | str | PathLike[str] | None = None,
    storage_options: StorageOptions | None = None,
    probes: Sequence[str] = (),
    timeout: float | str | timedelta = 1.0,
    network: bool = False,
    tokens: str | PathLike[str] | None = None,
) -> DoctorReport:
    """Checks which probes work here, whether the ledger's root is writable and atomic, and which credentials exist.

    It writes to a new directory below the ledger's root, and removes it. Without VMs (given or configured) and
    `network`, it sends requests only to this machine and to the ledger's store.

    Args:
        vms: Names of VMs to probe; of the inventory, where there is one.
        inventory: The VMs, in any shape that `Inventory` takes; else the configured ones. Without `vms`, all of them
            are probed.
        ledger: The ledger's root, or the ledger itself; else that of the settings.
        storage_options: Options for the ledger's store, as for `JobLedger`.
        probes: Probes to try on each VM in addition to ICMP and TCP port 22, such as `"tcp:443"`.
        timeout: Time per probe of a VM: seconds, text such as `"500ms"`, or a timedelta.
        network: Whether to send requests outside this machine: to the metadata service of Azure.
        tokens: File with the tokens of SAS Viya; else `data/sas_tokens.json`.

    Returns:
        The checks. A check that fails raises no exception.

    Raises:
        InvalidInputError: An argument is wrong, such as an unknown probe or shape of inventory.
        NotFoundError: The inventory file does not exist.

    Example:
        >>> from jobrota import doctor
        >>> report = doctor()
        >>> {check.status for check in report.checks if check.name in ("tcp", "http")}
        {'ok'}
    """
    ok, found = _examine(**_keywords(**locals()))
    return DoctorReport([Check(*check) for check in found], ok)


async def doctor_async(
    vms: Sequence[str] | None = None,
    *,
    inventory: Any = None,
    ledger: JobLedger | str | PathLike[str] | None = None,
    storage_options: StorageOptions | None = None,
    probes: Sequence[str] = (),
    timeout: float | str | timedelta = 1.0,
    network: bool = False,
    tokens: str | PathLike[str] | None = None,
) -> DoctorReport:
    """Like `doctor`, as a coroutine."""
    ok, found = await _examine(**_keywords(**locals()), asynchronous=True)
    return DoctorReport([Check(*check) for check in found], ok)


def _keywords(vms: Sequence[str] | None, inventory: Any, **given: Any) -> dict[str, Any]:
    """The arguments of the native function: those of `doctor` with the configured settings."""
    from jobrota.notebook import configured_settings

    configured = configured_settings()
    usable = {name: value for name, value in configured.items() if isinstance(value, str | PathLike | JobLedger)}
    chosen = _chosen(vms, inventory, configured.get("inventory"))
    return given | {"inventory": chosen, "probes": list(given["probes"]), "configured": usable}


def _chosen(vms: Sequence[str] | None, inventory: Any, configured: Any) -> Inventory | None:
    """The VMs to probe: those of the inventory that are named, or all of it."""
    if isinstance(vms, str):
        raise InvalidInputError(f"vms is one text, {vms!r}; give a list of VM names, such as [{vms!r}]")
    known: Inventory | None
    if inventory is not None:
        known = Inventory(inventory)
    else:
        # The report names a configured inventory that is broken.
        try:
            source = settings_lookup("inventory") if configured is None else configured
            known = None if source is None else Inventory(source)
        except JobrotaError:
            known = None
    if not vms:
        return known
    by_name = {} if known is None else {vm["name"]: vm for vm in known.vms}
    unknown = [name for name in vms if name not in by_name] if inventory is not None else []
    if unknown:
        raise InvalidInputError(f"the inventory does not name {', '.join(map(str, unknown))}")
    return Inventory([by_name.get(name) or {"name": name} for name in vms])


def _plain(text: str) -> str:
    """Text from outside on one line, without control characters for a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
