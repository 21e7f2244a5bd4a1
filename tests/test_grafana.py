"""The Grafana dashboard: each query reads metrics and labels that a delivery really writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

import jobrota
from support import REPOSITORY, run

DASHBOARD = json.loads((REPOSITORY / "deploy" / "grafana" / "jobrota.json").read_text(encoding="utf-8"))
PANELS = DASHBOARD["panels"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
# The labels that Prometheus adds to each sample of a target.
ADDED = {"instance": "machine:9100", "job": "node"}
UNITS = {"short", "s", "percentunit", "dateTimeAsIso"}
GRID_COLUMNS = 24

Sample = tuple[str, dict[str, str]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """The samples after deliveries with each kind of outcome that a metric counts."""
    ledger = jobrota.JobLedger(tmp_path_factory.mktemp("ledger"))
    ledger.log_job_execution("good.sas", "GOOD", "SUCCESS")
    for job in ("GOOD", "LATER", "PARKED"):
        ledger.log_job_completion(f"{job}.sas", job, "SUCCESS")

    def send(file_name: str, job_id: str, status: str) -> bool:
        return job_id == "GOOD"

    jobrota.AutosysUpdater(ledger, send, first=["PARKED"], max_attempts=1).run()
    jobrota.AutosysUpdater(ledger, send, backoff="1h").run()
    text = ledger.summary().to_prometheus()
    return [
        (sample.name, sample.labels | ADDED)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def nodes(expression: Any) -> Iterator[Any]:
    """The expression, and all that it consists of."""
    yield expression
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        if (part := getattr(expression, name, None)) is not None:
            yield from nodes(part)
    for argument in getattr(expression, "args", None) or ():
        yield from nodes(argument)


def parsed(expression: str) -> list[Any]:
    """The parts of a query in which each variable has the value of All."""
    for name in VARIABLES:
        expression = expression.replace(f"${name}", ".*")
    assert "$" not in expression
    return list(nodes(promql_parser.parse(expression)))


def selectors(expression: str) -> list[Any]:
    found = [node for node in parsed(expression) if isinstance(node, promql_parser.VectorSelector)]
    assert found
    return found


def selected(selector: Any, samples: list[Sample]) -> list[Sample]:
    """The samples that the selector finds. An empty or missing label is the same to Prometheus."""
    equal, pattern = promql_parser.MatchOp.Equal, promql_parser.MatchOp.Re
    found = [sample for sample in samples if sample[0] == selector.name]
    for matcher in selector.matchers.matchers:
        assert matcher.op in (equal, pattern), matcher
        if matcher.op == pattern:
            assert matcher.value == ".*", "a variable"
            found = [sample for sample in found if matcher.name in sample[1]]
        else:
            found = [sample for sample in found if sample[1].get(matcher.name) == matcher.value]
    return found


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_query_finds_samples(written: list[Sample], title: str, query: str) -> None:
    for selector in selectors(query):
        assert selected(selector, written), f"{title}: nothing is written for {selector}"


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_query_groups_by_labels_that_are_written(written: list[Sample], title: str, query: str) -> None:
    labels: set[str] = set()
    for node in parsed(query):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            labels |= set(node.modifier.labels)
    for selector in selectors(query):
        for _, has in selected(selector, written):
            assert labels <= has.keys(), title


def test_the_check_finds_what_is_not_written(written: list[Sample]) -> None:
    for wrong in ("jobrota_row", 'jobrota_rows{flag="PENDING"}', 'jobrota_rows{ledger=~"$table"}'):
        (selector,) = selectors(f"sum({wrong})")
        assert selected(selector, written) == []


def test_the_dashboard_has_every_metric(written: list[Sample]) -> None:
    shown = {selector.name for _, query in QUERIES for selector in selectors(query)}
    assert shown == {name for name, _ in written}


def test_the_command_writes_the_same_metrics(
    written: list[Sample], ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    assert run("autosys", "status", "--ledger", ledger.root, "--prometheus") == 0
    printed = {family.name for family in text_string_to_metric_families(capsys.readouterr().out)}
    assert printed
    assert printed <= {name for name, _ in written}


def test_each_variable_is_defined_and_used() -> None:
    assert [name for name, variable in VARIABLES.items() if variable["type"] == "datasource"] == ["datasource"]
    assert VARIABLES["datasource"]["query"] == "prometheus"
    text = json.dumps(PANELS)
    for name, variable in VARIABLES.items():
        assert f"${name}" in text or f"${{{name}}}" in text
        if variable["type"] == "query":
            assert variable["definition"] == variable["query"]["query"] == f"label_values(jobrota_rows, {name})"
            assert (variable["includeAll"], variable["allValue"]) == (True, ".*")


def test_grafana_can_import_the_panels() -> None:
    assert DASHBOARD["id"] is None, "Grafana gives it one"
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["title"]
    assert len(DASHBOARD["uid"]) <= 40
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)
    sources = [panel["datasource"] for panel in PANELS]
    sources += [target["datasource"] for panel in PANELS for target in panel["targets"]]
    sources += [variable["datasource"] for variable in VARIABLES.values() if variable["type"] == "query"]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    for panel in PANELS:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


def test_no_panel_covers_another() -> None:
    cells = []
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID_COLUMNS
        columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells += [(x, y) for x in columns for y in lines]
    assert len(set(cells)) == len(cells)
    bottom = max(y for _, y in cells) + 1
    assert len(cells) == GRID_COLUMNS * bottom, "there is no gap"


def test_seconds_since_a_moment_are_taken_from_now() -> None:
    for title, query in QUERIES:
        moments = [selector for selector in selectors(query) if selector.name.endswith("_timestamp_seconds")]
        assert not moments or "time() - " in query or query.endswith(" * 1000"), title


def test_the_page_names_the_file() -> None:
    page = (REPOSITORY / "docs" / "observability.md").read_text(encoding="utf-8")
    assert "../deploy/grafana/jobrota.json" in page
    assert Path(REPOSITORY / "deploy" / "grafana" / "jobrota.json").is_file()
