"""Checks what works on this machine: probes, a ledger root, credentials and settings."""

from __future__ import annotations

import tempfile

import jobrota


def main() -> None:
    """Prints the checks, and what to do about warnings and failures."""
    with tempfile.TemporaryDirectory() as root:
        report = jobrota.doctor(ledger=root)
        for area, checks in report.areas():
            print(area)
            for check in checks:
                print(f"  {check.status:<7} {check.name}: {check.detail}")
                if check.advice:
                    print(f"          {check.advice}")
        print(report.verdict())


if __name__ == "__main__":
    main()
