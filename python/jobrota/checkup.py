"""`jobrota.doctor()`: checks what works on this machine, and says what to do about the rest."""

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
# Readable on white and on black. The symbol has the same meaning without colour.
_COLORS = {"ok": "#2e9d5b", "note": "#888888", "warning": "#c77700", "failed": "#d6453d"}


@dataclass(frozen=True)
class Check:
    """One check. Its texts contain no secrets.

    Attributes:
        area: `environment`, `probes`, `vms`, `ledger`, `credentials` or `settings`.
        name: The thing that was checked.
        status: `ok`; `note` (missing, and not needed); `warning`; or `failed`.
        detail: The finding.
        advice: What to do. Each warning and failure has one.
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
        ok: Whether everything that is needed works: the ledger's root (if one is set), the settings file, and at least
            one kind of probe, which at least one of the given VMs answers.
    """

    checks: list[Check]
    ok: bool

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain values: `ok`, and `checks` as dicts."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def areas(self) -> Iterator[tuple[str, list[Check]]]:
        """Yields the checks by area, with the area's title."""
        for area, title in TITLES.items():
            checks = [check for check in self.checks if check.area == area]
            if checks:
                yield title, checks

    def verdict(self) -> str:
        """Returns a summary in one line."""
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
    """Checks which probes work, whether the ledger's root is writable and atomic, and which credentials exist.

    It writes only into a new directory below the ledger's root, which it removes again. Without VMs (given or
    configured) and `network`, it sends requests only to this machine and the ledger's store.

    Args:
        vms: Names of VMs to probe; names of the inventory, if there is one.
        inventory: The VMs, as any argument of `Inventory`; else the configured ones. Without `vms`, all of them are
            probed.
        ledger: The ledger's root, or the ledger itself; else that of the settings.
        storage_options: Options for the ledger's store, as for `JobLedger`.
        probes: More probes to try on each VM, besides ICMP and TCP port 22, such as `"tcp:443"`.
        timeout: Seconds per probe of a VM.
        network: Whether to send requests beyond this machine: to the metadata service of Azure.
        tokens: File with the tokens of SAS Viya; else `data/sas_tokens.json`.

    Returns:
        The checks. A check that fails raises no exception.

    Raises:
        InvalidInputError: A probe or the form of the inventory is unknown.
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
    """Returns the VMs to probe: the named ones of the inventory, or all of it."""
    if isinstance(vms, str):
        raise InvalidInputError(f"vms is one text, {vms!r}; give a list of VM names, such as [{vms!r}]")
    known: Inventory | None
    if inventory is not None:
        known = Inventory(inventory)
    else:
        # The report says if the configured inventory is broken. The other checks run all the same.
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
    """Returns text of another system on one line, without control characters of terminals."""
    return "".join(char if char.isprintable() else " " for char in text)
