"""Prints the figures of the ledger, compared with other writers of Delta tables in the same run: `make bench`.

Times depend on the machine, and on what else it does: compare them within one run, and quote the ratios.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ledger_rows import latency, many, volume
from ledger_rows.common import Result, Scale
from report import measure

ROWS: dict[str, Callable[[Path, Scale], Iterator[Result]]] = {
    "single": latency.single,
    "history": latency.history,
    "threads": latency.threads,
    "delay": latency.delay,
    "processes": many.processes,
    "fetch": volume.fetch,
    "acknowledge": volume.acknowledge,
    "spark": volume.spark,
    "mixed": many.mixed,
    "raw": latency.raw,
}

if __name__ == "__main__":
    packages = ["jobrota", "deltalake", "pyspark", "delta-spark"]
    sys.exit(measure("The ledger's figures", __doc__, ROWS, packages))
