"""The dashboard and the alerts of the bundle: each query runs in a real Spark, on tables that jobrota made."""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import Any

import pytest

import jobrota
from bundle import FOLDER, Bundle
from reported_runs import recorded
from support import answers, column, log_aged, rows
from test_deploy import GIVEN

pytestmark = pytest.mark.timeout(300)

DASHBOARD = json.loads((FOLDER / "dashboards" / "jobrota.lvdash.json").read_text(encoding="utf-8"))
DATASETS = {dataset["name"]: "".join(dataset["queryLines"]) for dataset in DASHBOARD["datasets"]}
WIDGETS = [placed["widget"] for page in DASHBOARD["pages"] for placed in page["layout"]]
ALERTS = Bundle().resolved("prod", GIVEN)["alerts"]
VERSIONS = {"counter": 2, "bar": 3, "line": 3}
OPERATORS = {"GREATER_THAN": operator.gt, "LESS_THAN": operator.lt}


@dataclass(frozen=True)
class Registered:
    """A ledger whose tables Spark's catalog has."""

    ledger: jobrota.JobLedger
    schema: str
    spark: Any

    def query(self, text: str) -> list[dict[str, Any]]:
        """The rows of a query whose tables are found as in the dashboard: in the catalog and schema of the bundle."""
        self.spark.sql(f"USE spark_catalog.{self.schema}")
        return [row.asDict() for row in self.spark.sql(text).collect()]

    def state(self, name: str) -> str:
        """How an alert ends."""
        alert = Bundle().resolved("prod", GIVEN | {"catalog": "spark_catalog", "schema": self.schema})["alerts"][name]
        evaluation = alert["evaluation"]
        found = self.query(alert["query_text"])
        if not found:
            return str(evaluation["empty_result_state"])
        value = found[0][evaluation["source"]["name"]]
        compare = OPERATORS[evaluation["comparison_operator"]]
        return "TRIGGERED" if compare(value, evaluation["threshold"]["value"]["double_value"]) else "OK"


def statements(schema: str, root: str) -> list[str]:
    """The statements of deploy/tables.sql, for a schema of Spark's catalog and a ledger."""
    text = (FOLDER / "tables.sql").read_text(encoding="utf-8")
    uri = "abfss://container@account.dfs.core.windows.net/path"
    for old, new in (("main.jobrota", f"spark_catalog.{schema}"), (uri, root)):
        assert old in text
        text = text.replace(old, new)
    return text.strip().removesuffix(";").split(";\n")


@contextmanager
def cached(registered: Registered) -> Iterator[Registered]:
    """Keeps the state: several tests and alerts read it, and its query takes longer than all others."""
    name = f"spark_catalog.{registered.schema}.delivery_state"
    registered.spark.sql(f"CACHE TABLE {name}")
    yield registered
    registered.spark.sql(f"UNCACHE TABLE {name}")


def deliver(ledger: jobrota.JobLedger, refused: set[str], **options: Any) -> jobrota.DeliveryReport:
    return jobrota.AutosysUpdater(ledger, lambda file, job, status: job not in refused, **options).run()


def select(root: str, turns: int) -> None:
    selector = jobrota.RoundRobinSelector(["vm1", "vm2", "vm3"], cursor=root, probe=answers)
    for _ in range(turns):
        selector.select()


@pytest.fixture(scope="module")
def busy(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    """A ledger with pending rows of every age, parked and redriven ones, selections and two comparisons."""
    root = tmp_path_factory.mktemp("busy")
    ledger = jobrota.JobLedger(root)
    log_aged(ledger, {"PARKED": timedelta(hours=2), "REDRIVEN": timedelta(hours=3), "DONE": timedelta(days=2)})
    # Two identical rows, of which both are parked.
    log_aged(ledger, {"TWICE": timedelta(days=3)})
    ledger.log_notifications(ledger.pending_notifications(job_id="TWICE"))
    assert deliver(ledger, {"PARKED", "REDRIVEN", "TWICE"}, max_attempts=1).parked == 4
    assert ledger.redrive(job_id="REDRIVEN") == 1
    log_aged(ledger, {"NEW": timedelta(minutes=1), "LATER": timedelta(minutes=30)})
    assert deliver(ledger, {"REDRIVEN", "NEW", "LATER"}).failed == 3
    select(str(root), 7)
    for rounds in (1, 2):
        jobrota.ComparisonResult.from_table(recorded(rounds=rounds)).append_to(root)
    for statement in statements("busy", ledger.root):
        spark.sql(statement)
    with cached(Registered(ledger, "busy", spark)) as registered:
        yield registered
    spark.sql("USE spark_catalog.default")
    spark.sql("DROP SCHEMA spark_catalog.busy CASCADE")


@pytest.fixture(scope="module")
def calm(busy: Registered) -> Iterator[Registered]:
    """The same ledger two days later, with everything acknowledged."""
    spark = busy.spark
    spark.sql("CREATE SCHEMA spark_catalog.calm")
    for table, query in (
        ("job_notifications", "SELECT * FROM spark_catalog.busy.job_notifications WHERE FALSE"),
        (
            "autosys_deliveries",
            "SELECT * EXCEPT (attempted_at), attempted_at - INTERVAL 2 DAYS AS attempted_at "
            "FROM spark_catalog.busy.autosys_deliveries",
        ),
    ):
        spark.sql(f"CREATE VIEW spark_catalog.calm.{table} AS {query}")
    spark.sql(statements("calm", busy.ledger.root)[-1])
    with cached(Registered(busy.ledger, "calm", spark)) as registered:
        yield registered
    spark.sql("USE spark_catalog.default")
    spark.sql("DROP SCHEMA spark_catalog.calm CASCADE")


def test_the_state_is_that_of_the_status(busy: Registered) -> None:
    summary = busy.ledger.summary()
    (state,) = busy.query(DATASETS["state"])
    assert (state["pending_rows"], state["parked_rows"]) == (summary.notifications["pending"], summary.parked) == (6, 3)
    oldest = summary.notifications["oldest_pending"]
    assert oldest is not None
    assert state["oldest_pending_minutes"] == pytest.approx(3 * 24 * 60, abs=10)
    assert oldest == min(column(busy.ledger.pending_notifications(), "notification_timestamp"))
    assert state["success_rate"] == pytest.approx(summary.success_rate)
    assert state["success_rate"] == pytest.approx(1 / 8)


def test_pending_rows_by_age(busy: Registered) -> None:
    found = {row["age"]: row["pending_rows"] for row in busy.query(DATASETS["pending_by_age"])}
    assert found == {"under 15 min": 1, "15 min to 1 h": 1, "1 h to 24 h": 2, "over 24 h": 2}
    assert sorted(found.values()) == sorted(busy.ledger.summary().pending_by_age.values())
    (chart,) = [widget for widget in WIDGETS if widget["name"] == "pending-by-age"]
    assert set(chart["spec"]["encodings"]["x"]["scale"]["sort"]["orderedValues"]) == found.keys()


def test_deliveries_by_outcome(busy: Registered) -> None:
    found: Counter[str] = Counter()
    for row in busy.query(DATASETS["deliveries_by_outcome"]):
        found[row["outcome"]] += row["attempts"]
    outcomes = Counter(column(busy.ledger.deliveries(), "outcome"))
    del outcomes["sending"]
    assert found == outcomes == {"parked": 4, "delivered": 1, "redriven": 1, "failed": 3}


def test_selections_per_vm(busy: Registered) -> None:
    selector = jobrota.RoundRobinSelector(["vm1", "vm2", "vm3"], cursor=busy.ledger.root, probe=answers)
    turns = {vm: selections for vm, selections, *_ in rows(selector.distribution())}
    assert {row["vm"]: row["selections"] for row in busy.query(DATASETS["selections_per_vm"])} == turns
    assert sorted(turns.values()) == [2, 2, 3]


def test_comparisons_over_time(busy: Registered) -> None:
    history = jobrota.comparison_history(busy.ledger.root)
    names = ("run_at", "arm", "makespan_s")
    expected = sorted(zip(*(column(history, name) for name in names), strict=True))
    found = sorted(
        (row["run_at"].replace(tzinfo=timezone.utc), row["arm"], row["seconds"])
        for row in busy.query(DATASETS["comparisons"])
    )
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected])
    assert len({row[0] for row in found}) == 2


@pytest.mark.parametrize("widget", [widget for widget in WIDGETS if "queries" in widget], ids=lambda each: each["name"])
def test_each_widget_shows_columns_that_its_query_has(busy: Registered, widget: dict[str, Any]) -> None:
    (main,) = widget["queries"]
    query = main["query"]
    fields = ", ".join(f"{field['expression']} AS `{field['name']}`" for field in query["fields"])
    busy.spark.sql(f"USE spark_catalog.{busy.schema}")
    columns = busy.spark.sql(f"SELECT {fields} FROM ({DATASETS[query['datasetName']]})").columns
    spec = widget["spec"]
    assert [encoding["fieldName"] for encoding in spec["encodings"].values()] == columns
    assert spec["version"] == VERSIONS[spec["widgetType"]]
    assert spec["frame"]["title"]


def test_widgets_have_names_and_places_of_their_own() -> None:
    assert len({widget["name"] for widget in WIDGETS}) == len(WIDGETS)
    used = {widget["queries"][0]["query"]["datasetName"] for widget in WIDGETS if "queries" in widget}
    assert used == DATASETS.keys()
    taken: set[tuple[int, int]] = set()
    for page in DASHBOARD["pages"]:
        for placed in page["layout"]:
            at = placed["position"]
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["width"]) for y in range(at["height"])}
            assert not cells & taken
            assert max(x for x, _ in cells) < 12
            taken |= cells


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_triggered_by_what_it_is_about(busy: Registered, calm: Registered, name: str) -> None:
    assert busy.state(name) == "TRIGGERED"
    assert calm.state(name) == "OK"


def test_without_pending_rows_and_attempts_there_is_no_age_and_no_rate(calm: Registered) -> None:
    (state,) = calm.query("SELECT * FROM delivery_state")
    assert state == {"pending_rows": 0, "parked_rows": 0, "oldest_pending_minutes": None, "success_percent": None}
