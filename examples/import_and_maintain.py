"""Imports legacy JSON files into the ledger, each record once, and compacts the ledger's tables."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from jobrota import JobLedger


def main() -> None:
    """Imports a folder twice, and maintains the ledger."""
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as folder:
        ledger = JobLedger(root)
        for hour in range(3):
            record = {
                "file": "ae.sas",
                "jobName": f"STUDY.AE{hour}",
                "status": "SUCCESS",
                "time": f"2026-05-01T0{hour}:00:00",
            }
            Path(folder, f"{hour}.json").write_text(json.dumps(record))

        # The files name their fields differently, and their times have no offset.
        fields = {"file_name": "file", "job_id": "jobName", "timestamp": "time"}
        for _ in range(2):
            report = ledger.import_json(folder, fields=fields, timezone="Europe/Berlin")
            print(f"{report.files} files: {report.imported} imported, {report.known} known, {report.rows} rows written")
        print("pending:", ledger.pending_notifications()["job_id"].to_pylist())

        # Each logged row is a small file. Run this once a day.
        for number in range(20):
            ledger.log_job_completion("dm.sas", f"STUDY.DM{number}", "SUCCESS")
        maintained = ledger.maintain(retain_hours=168)
        print(f"{maintained.files_compacted} files compacted into {maintained.files_written}")
        print(f"{ledger.pending_notifications().num_rows} rows, problems: {maintained.problems}")


if __name__ == "__main__":
    main()
