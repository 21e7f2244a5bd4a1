"""A real Spark with Delta Lake in this process, for the tests and the bench: one session, local, nothing downloaded."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

JARS = Path(sys.prefix) / "share" / "jobrota" / "jars"
"""Where the Makefile has Maven put the jars of Delta Lake."""


def missing() -> str | None:
    """What keeps Spark from running here, with what to do about it; None if nothing does."""
    if shutil.which("java") is None:
        return "Spark needs Java 17, which is not here: install it (on Debian: openjdk-17-jre-headless)"
    if not list(JARS.glob("delta-spark_*.jar")):
        return "the jars of Delta Lake are not here: run `make test` with Maven on the PATH"
    try:
        import delta  # noqa: F401
        import pyspark  # noqa: F401
    except ImportError as error:
        return f"{error}: run `make test`, which installs it"
    return None


def start(scratch: Path, *, short_lived: bool) -> Any:
    """A session of two local threads that keeps all that it writes for itself below `scratch`.

    Its catalog is in memory: tables are named by their path, as in delta.`/path`. A short-lived one does not spend
    minutes on compiling what runs once; what is measured must not be `short_lived`.
    """
    from pyspark.sql import SparkSession

    scratch.mkdir(parents=True, exist_ok=True)
    # The machine's own name may not resolve, and nothing outside needs to reach the driver.
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    java = f"-Djava.io.tmpdir={scratch} -Dderby.system.home={scratch} -XX:+UseSerialGC"
    configuration = {
        "spark.driver.extraClassPath": f"{JARS}/*",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.local.dir": str(scratch),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": f"{java} -XX:TieredStopAtLevel=1" if short_lived else java,
        "spark.sql.codegen.wholeStage": str(not short_lived).lower(),
        "spark.log.level": "ERROR",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # Small tables: what Spark splits into parts for clusters only costs time here.
        "spark.default.parallelism": "2",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.session.timeZone": "UTC",
    }
    builder = SparkSession.builder.master("local[2]").appName("jobrota")
    for name, value in configuration.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
