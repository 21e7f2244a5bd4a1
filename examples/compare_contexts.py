"""Compares compute contexts of SAS Viya: three arms, several rounds, the conclusion, a report and a workbook."""

from __future__ import annotations

import tempfile
from pathlib import Path

from jobrota import Sandbox, ViyaComparisonRunner


def main() -> None:
    """Runs twelve jobs in three arms and five rounds."""
    # Job definitions with their durations in the sandbox's seconds.
    definitions = {f"job{number:02}_pooled": 20.0 + 5 * number for number in range(12)}
    with (
        Sandbox(autosys=False, vms=1, vms_down=0, speed=600, definitions=definitions) as sandbox,
        tempfile.TemporaryDirectory() as results,
    ):
        runner = ViyaComparisonRunner(
            sandbox.viya_url,
            tokens=sandbox.tokens,
            jobs=sandbox.jobs,
            # The third arm separates the effect of parallelism from that of the context.
            arms="three_way",
            mode="window",
            concurrent=4,
            # With fewer than five rounds, no difference is claimed.
            repeat=5,
            results_dir=results,
        )
        result = runner.run()
        values = result.to_dict()

        print(values["analysis"]["verdict"]["text"])
        for gain in values["analysis"]["comparisons"]:
            print("-", gain["text"])
        for warning in result.warnings:
            print(f"warning {warning.code}: {warning.text}")
        jobs = result.jobs()  # an Arrow table, one row per job
        print(f"{jobs.num_rows} jobs, {result.failed_jobs} failed; columns {', '.join(jobs.column_names[:5])}, …")

        # Both need the extra `report`.
        for written in (result.report(Path(results, "report.html")), result.to_excel(Path(results, "report.xlsx"))):
            print(f"{written.name}: {written.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
