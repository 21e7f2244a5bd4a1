"""`jobrota.doctor()`: what works on this machine, why the rest does not, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from os import PathLike
from typing import Any

from jobrota._native import Inventory, JobLedger, settings_lookup
from jobrota._native import doctor as _examine
from jobrota.errors import InvalidInputError, JobrotaError

__all__ = ["Check", "DoctorReport", "doctor"]

SYMBOLS = {"ok": "✓", "note": "–", "warning": "!", "failed": "✗"}
TITLES = {
    "environment": "Where this is",
    "probes": "Probes",
    "vms": "VMs",
    "ledger": "Ledger root",
    "credentials": "Credentials",
    "settings": "Settings",
}
# Dark enough on white and light enough on black; the symbol says the same without colour.
_COLORS = {"ok": "#2e9d5b", "note": "#888888", "warning": "#c77700", "failed": "#d6453d"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. Its texts hold no secrets.

    Attributes:
        area: `environment`, `probes`, `vms`, `ledger`, `credentials` or `settings`.
        name: What was looked at.
        status: `ok`; `note` (not there, and need not be); `warning`; or `failed`.
        detail: What was found.
        advice: What to do about it; every warning and failure has one.
    """

    area: str
    name: str
    status: str
    detail: str
    advice: str | None = None


@dataclass(frozen=True)
class DoctorReport:
    """What `doctor()` found.

    Attributes:
        checks: Everything that was looked at.
        ok: Whether nothing failed that is needed: the ledger's root (where one is set), the settings file, and at least
            one kind of probe, which at least one of the VMs given answers.
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
        """One line that sums it up."""
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
        body = ""
        for title, checks in self.areas():
            body += f'<tr><th colspan="3" scope="colgroup" style="{cell};padding-top:.6em">{escape(title)}</th></tr>'
            for check in checks:
                advice = f'<div style="opacity:.75">→ {escape(_plain(check.advice))}</div>' if check.advice else ""
                body += (
                    f'<tr><td style="{cell};color:{_COLORS[check.status]};font-weight:600">'
                    f'<span role="img" aria-label="{check.status}">{SYMBOLS[check.status]}</span></td>'
                    f'<td style="{cell};white-space:nowrap">{escape(_plain(check.name))}</td>'
                    f'<td style="{cell}">{escape(_plain(check.detail))}{advice}</td></tr>'
                )
        color = _COLORS["ok" if self.ok else "failed"]
        return (
            '<div style="display:inline-block;border:1px solid rgba(128,128,128,.4);border-radius:6px;'
            'padding:.6em .9em;margin:.2em 0"><div style="font-weight:600;margin-bottom:.2em">Doctor: '
            f'<span style="color:{color}">{escape(self.verdict())}</span></div>'
            f'<table style="margin:0;border-collapse:collapse">{body}</table></div>'
        )


def doctor(
    vms: Sequence[str] | None = None,
    *,
    inventory: Any = None,
    ledger: JobLedger | str | PathLike[str] | None = None,
    storage_options: Mapping[str, str | float | bool] | None = None,
    probes: Sequence[str] = (),
    timeout: float = 1.0,
    network: bool = False,
    tokens: str | PathLike[str] | None = None,
) -> DoctorReport:
    """Looks which probes work here, whether the ledger's root is writable and atomic, and which credentials are found.

    Leaves nothing behind: what it writes is in a directory of its own below the ledger's root, and removed again.
    Without VMs (given or configured) and `network`, nothing but this machine and the ledger's store is asked.

    Args:
        vms: Names of VMs to probe; of the inventory, where there is one.
        inventory: The VMs, in any shape that `Inventory` takes; else the configured ones. Without `vms`, all of them
            are probed.
        ledger: The ledger's root, or the ledger itself; else that of the settings.
        storage_options: Options for the ledger's store, as for `JobLedger`.
        probes: Probes to try on each VM beside ICMP and TCP port 22, such as `"tcp:443"`.
        timeout: Seconds per probe of a VM.
        network: Whether addresses outside this machine may be asked: the metadata service of Azure.
        tokens: File with the tokens of SAS Viya; else `data/sas_tokens.json`.

    Returns:
        The checks. What does not work is no exception, but among them.

    Raises:
        InvalidInputError: An argument is wrong: a probe or shape of inventory that is not known.
        NotFoundError: There is no such inventory file.

    Example:
        >>> from jobrota import doctor
        >>> report = doctor()
        >>> {check.status for check in report.checks if check.name in ("tcp", "http")}
        {'ok'}
    """
    from jobrota.notebook import configured_settings

    configured = configured_settings()
    usable = {name: value for name, value in configured.items() if isinstance(value, str | PathLike | JobLedger)}
    ok, found = _examine(
        ledger=ledger,
        storage_options=storage_options,
        inventory=_chosen(vms, inventory, configured.get("inventory")),
        probes=list(probes),
        timeout=timeout,
        network=network,
        tokens=tokens,
        configured=usable,
    )
    return DoctorReport([Check(*check) for check in found], ok)


def _chosen(vms: Sequence[str] | None, inventory: Any, configured: Any) -> Inventory | None:
    """The VMs to probe: those of the inventory that are named, or all of it."""
    if isinstance(vms, str):
        raise InvalidInputError(f"vms is one text, {vms!r}; give a list of VM names, such as [{vms!r}]")
    known: Inventory | None
    if inventory is not None:
        known = Inventory(inventory)
    else:
        # One that is configured and broken is told of in the report, and no reason to have none.
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
    """Text from outside on one line, without what could steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
