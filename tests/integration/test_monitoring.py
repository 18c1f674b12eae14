"""The dashboard, the alert rules and their pages agree with what the code exports, and with each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from sagas import PostgresSagaStorage, SagaEngine, Settings
from sagas.celery.application import SagaCelery
from sagas.celery.dispatch import CeleryDispatcher
from sagas.ids import new_saga_id
from sagas.storage.records import NewSaga
from sagas.telemetry.database import DatabaseMetrics
from sagas.telemetry.metrics import Metrics
from tests.forking import start_celery
from tests.integration.docs.commands import commands_of
from tests.integration.docs.pages import REPOSITORY, blocks

MONITORING = REPOSITORY / "docs" / "monitoring.md"
PAGES = REPOSITORY / "docs" / "operations"
RULES_FILE = REPOSITORY / "deploy" / "prometheus" / "alerts.yml"
RULES: list[dict[str, Any]] = yaml.safe_load(RULES_FILE.read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((REPOSITORY / "deploy" / "grafana" / "sagas.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
#: What the alerts at least are to tell of.
REQUIRED = {
    "SagasDead",
    "SagasOldestRecoverableTooOld",
    "SagasScanStopped",
    "SagasDatabaseDown",
    "SagasLeasesLost",
    "SagasStepFailing",
    "SagasDeclined",
    "SagasQueueStuck",
    "SagasPausedTooLong",
}
#: What Prometheus and Grafana add to what is exported.
THEIR_LABELS = {"instance", "le", "job"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


class Exported:
    """One family of metrics that the code exports."""

    def __init__(self, name: str, kind: str, help_text: str, labels: tuple[str, ...], source: str) -> None:
        self.name, self.kind, self.help_text, self.labels, self.source = name, kind, help_text, labels, source
        self.samples = [name + suffix for suffix in SUFFIXES[kind]]

    def row(self) -> str:
        """Its row in the documentation's table."""
        name = self.samples[0] if self.kind == "counter" else self.name
        return f"| `{name}` | {self.kind} | {', '.join(self.labels) or 'none'} | {self.source} | {self.help_text} |"


def exported() -> list[Exported]:
    """What is exported, in the order of the code."""
    nowhere = PostgresSagaStorage("postgresql+psycopg://nobody@127.0.0.1:1/none")
    families = [
        Exported(metric.name, metric.type, metric.documentation, tuple(metric._labelnames), "database")  # type: ignore[attr-defined]
        for metric in DatabaseMetrics(nowhere).describe()
    ]
    for metric in vars(Metrics(CollectorRegistry())).values():
        assert isinstance(metric, MetricWrapperBase)
        families.append(
            Exported(metric._name, metric._type, metric._documentation, tuple(metric._labelnames), "workers")
        )
    return families


def metrics_table() -> str:
    """The table of docs/monitoring.md, as the code has it."""
    header = "| Metric | Type | Labels | From | What it is |\n|---|---|---|---|---|"
    return "\n".join([header, *(family.row() for family in exported())])


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression, and where it is."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if "definition" in variable:
            yield variable["name"], variable["definition"]


def test_the_table_in_the_documentation_is_what_the_code_exports() -> None:
    text = MONITORING.read_text()
    shown = re.search(r"<!-- metrics: .*?-->\n(.*?)\n<!-- end of metrics -->", text, re.DOTALL)
    assert shown is not None
    assert shown[1] == metrics_table()


def test_an_expression_names_only_what_is_exported() -> None:
    labels_of = {sample: set(family.labels) for family in exported() for sample in family.samples}
    for where, expression in expressions():
        _names_only_what_is_exported(where, expression, labels_of)


def _names_only_what_is_exported(where: str, expression: str, labels_of: dict[str, set[str]]) -> None:
    without_text = re.sub(r'"[^"]*"', '""', expression)
    names = re.findall(r"\bsagas_\w+", without_text)
    assert names, where
    assert set(names) <= set(labels_of), where

    known = set().union(*(labels_of[name] for name in names)) | THEIR_LABELS
    for grouping in re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", without_text):
        assert {label.strip() for label in grouping.split(",") if label.strip()} <= known, where
    for name, matchers in re.findall(r"\b(sagas_\w+)\{([^}]*)\}", without_text):
        matched = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert matched <= labels_of[name] | THEIR_LABELS, where


def test_the_outcomes_in_expressions_are_those_that_are_exported() -> None:
    helps = {sample: family.help_text for family in exported() for sample in family.samples}
    for where, expression in expressions():
        for name, matchers in re.findall(r"\b(sagas_\w+)\{([^}]*)\}", expression):
            for values in re.findall(r'outcome=~?"([^"]*)"', matchers):
                for value in values.split("|"):
                    assert re.search(rf"\b{value}\b", helps[name]), (where, value)


def test_every_metric_that_is_exported_is_looked_at() -> None:
    every_expression = " ".join(expression for _, expression in expressions())
    for family in exported():
        assert any(re.search(rf"\b{sample}\b", every_expression) for sample in family.samples), family.name


def test_an_alert_says_what_it_means_and_where_its_page_is() -> None:
    for rule in RULES:
        _says_what_it_means_and_where_its_page_is(rule)


def _says_what_it_means_and_where_its_page_is(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == {"summary", "description", "page"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    kebab = re.sub(r"(?<!^)(?=[A-Z])", "-", rule["alert"]).lower()
    assert rule["annotations"]["page"] == f"docs/operations/{kebab}.md"
    page = (REPOSITORY / rule["annotations"]["page"]).read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert headings == ["What it means", "What users notice", "What to type", "When to worry"]
    # Three commands settle it.
    (console,) = blocks(REPOSITORY / rule["annotations"]["page"], "console")
    assert 1 <= len(list(commands_of(console))) <= 3
    for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
        assert re.search(rf"by \([^)]*\b{label}\b", rule["expr"]), label


def test_there_is_an_alert_for_everything_that_must_be_told() -> None:
    assert {rule["alert"] for rule in RULES} >= REQUIRED


def test_every_page_of_an_alert_has_its_alert_and_is_linked() -> None:
    pages = {f"docs/operations/{path.name}" for path in PAGES.glob("sagas-*.md")}
    assert pages == {rule["annotations"]["page"] for rule in RULES}
    linked = re.findall(r"^\| (\w+) \| \[.*\]\((operations/.*)\) \|$", MONITORING.read_text(), re.MULTILINE)
    assert [(alert, f"docs/{page}") for alert, page in linked] == [
        (rule["alert"], rule["annotations"]["page"]) for rule in RULES
    ]


def test_the_panels_are_told_apart_and_lie_side_by_side() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["description"], panel["title"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Prometheus, is not installed here")
@pytest.mark.parametrize(
    "command", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]], ids=lambda words: words[0]
)
def test_prometheus_itself_takes_the_rules(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=RULES_FILE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- docs/monitoring.md -----------------------------------------------------------------------------------------------


GREETING = """
import logging
from dataclasses import dataclass
from sagas import Call, Saga, Step

{code}

@dataclass
class Greeting:
    name: str

class SayHello(Step[Greeting]):
    def act(self, context: Greeting, call: Call) -> None:
        logging.getLogger("greetings").warning("hello %s", context.name)

class Greet(Saga[Greeting]):
    steps = [SayHello]
"""


def test_what_the_documentation_puts_into_a_worker_gives_metrics_spans_and_lines_of_json(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    _, spans, as_json, in_worker = (block.text for block in blocks(MONITORING, "python"))
    (tmp_path / "greetings.py").write_text(GREETING.format(code=spans))
    own = "from celery import Celery\nfrom sagas.celery import install\napp = Celery('shop')\ninstall(app)\n"
    (tmp_path / "shop.py").write_text(f"{own}app.conf.broker_url = {broker_url!r}\n{as_json}\n{in_worker}")
    settings = {
        "SAGAS_DATABASE_URL": database_url,
        "SAGAS_MODULES": "greetings",
        "PYTHONPATH": f"{tmp_path}:{REPOSITORY}",
        "TMPDIR": str(tmp_path),
        "OTEL_BSP_SCHEDULE_DELAY": "100",  # milliseconds until the exporter prints a span
    }
    storage = PostgresSagaStorage(database_url)
    saga = NewSaga(id=new_saga_id(), name="greet", context='{"name": "Ann"}')
    storage.create_sagas([saga])
    log = tmp_path / "log"
    arguments = ["worker", "-c", "1", "-l", "INFO", "-Q", "celery,sagas.scan,sagas.recover,sagas.run"]
    with start_celery(arguments, application="shop", environment=settings, log=log, directory=tmp_path) as worker:
        worker.wait_for_log(" ready.")
        SagaEngine(storage, dispatcher=_dispatcher(broker_url)).scan()
        worker.wait_for_log("the saga is COMPLETED")
        worker.wait_for_log('"name": "saga greet"')
        worker.kill()
    storage.close()

    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"asctime"')]
    about = {"saga_id": str(saga.id), "saga_name": "greet", "step": "say-hello", "action": "act", "attempt": 1}
    for message in ("hello Ann", f"saga {saga.id} (greet): completed: the saga is COMPLETED."):
        (line,) = (line for line in lines if line["message"] == message)
        assert {name: line[name] for name in about} == about
    assert {"saga_id": lines[0]["saga_id"]} == {"saga_id": None}, "Celery's own lines have them too, empty"


def _dispatcher(broker_url: str) -> CeleryDispatcher:
    return CeleryDispatcher(SagaCelery(Settings(broker_url=broker_url)))


def test_the_observer_and_the_configuration_in_the_documentation_are_taken() -> None:
    names: dict[str, Any] = {}
    exec(blocks(MONITORING, "python")[0].text, names)
    assert isinstance(names["engine"].runtime().observer, Metrics)
    scrape = yaml.safe_load(blocks(MONITORING, "yaml")[0].text)
    assert scrape["rule_files"] == [RULES_FILE.name]
