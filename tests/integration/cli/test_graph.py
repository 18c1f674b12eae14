"""`sagas graph`: the steps of a saga in both directions, in each of its forms."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Final

import pytest

from sagas import Call, RetryPolicy, Saga, Sleep, Step, Wait
from sagas.cli.graph import graph_as_json, mermaid_graph, text_graph
from tests.integration.cli.conftest import SHOP, Command
from tests.integration.cli.shop import Order

#: Of a flowchart: nodes with their labels, and arrows between them.
NODE: Final = r'\w+(?:\[\[?"[^"\[\]`]*"\]\]?|\(\[\w+\]\)|\(\["[^"\[\]`]*"\]\))?'
ARROW: Final = r"(?:-->|-\. [\w ,]+ \.->)"
LINE: Final = re.compile(rf"    {NODE}(?: {ARROW} {NODE})?")


class _Act(Step[Order]):
    def act(self, context: Order, call: Call) -> None:
        pass


class Undone(_Act):
    name = 'a "quoted" [name] #1; %% `x` --> end'
    retry = RetryPolicy(max_attempts=2, first_delay=0.5, retry_on=(OSError, KeyError))

    def compensate(self, context: Order, call: Call) -> None:
        pass


class Plain(_Act):
    timeout = 2.5


class Charged(Undone):
    name = "charged"
    retry = RetryPolicy(max_attempts=8, max_delay=9)
    pivot = True


class Sent(_Act):
    pass


class Whole(Saga[Order]):
    steps = [Undone, Plain, Charged, Sent]


class Bare(Saga[Order]):
    steps = [Plain]


class ByInvoice(Undone):
    name = "by-invoice"
    timeout = 1.5


class ByCard(Undone):
    name = "by-card"
    fallback = ByInvoice


class Letter(_Act):
    pass


class Mail(_Act):
    fallback = Letter


class Alternated(Saga[Order]):
    steps = [Plain, ByCard, Charged, Mail]


class Courier(Wait[str]):
    timeout = timedelta(days=2)


class Nap(Sleep):
    duration = timedelta(hours=3)


class Feedback(Wait[None]):
    timeout = timedelta(seconds=90)
    on_timeout = "go on"


class Patience(Wait[None]):
    pivot = True


class Waiting(Saga[Order]):
    steps = [Undone, Courier, Nap, Patience, Feedback]


def edges(chart: str) -> set[tuple[str, str, str]]:
    """Every arrow of the flowchart: from, kind, to."""
    found = re.findall(rf"^    (\w+)(?:\W.*)? ({ARROW}) (\w+)", chart, re.MULTILINE)
    return set(found)


def test_the_table_tells_what_follows_if_a_step_fails_for_good() -> None:
    lines = text_graph(Whole).plain.splitlines()

    assert lines[0] == "whole, version 1 (Whole)"
    first, second, third, fourth = (re.split(r"\s{2,}", line.strip()) for line in lines[4:8])
    assert first[2:] == ["2, after 0.5 s, on OSError, KeyError", "-", "compensates itself, if in doubt"]
    assert second == ["2", "plain", "1", "2.5 s", f"compensates {Undone.name}"]
    assert third == [
        *("3", "charged", "(pivot)", "8, after 1, 2, 4, … 9 s", "-"),
        f"compensates {Undone.name}; itself before, if in doubt",
    ]
    assert fourth == ["4", "sent", "1", "-", "past the pivot: tried again later, never undone"]
    assert [line.split()[0] for line in lines[11:13]] == ["charged", "a"]


def test_a_saga_with_nothing_to_undo_says_so() -> None:
    text = text_graph(Bare).plain

    assert "  nothing to undo\n" in text + "\n"
    assert text.endswith("no step has anything to undo")
    assert edges(mermaid_graph(Bare)) == {
        ("start", "-->", "act1"),
        ("act1", "-->", "completed"),
        ("act1", "-. fails .->", "compensated"),
    }


def test_the_flowchart_goes_forward_back_and_past_the_pivot_only_forward() -> None:
    assert edges(mermaid_graph(Whole)) == {
        ("start", "-->", "act1"),
        ("act1", "-->", "act2"),
        ("act2", "-->", "act3"),
        ("act3", "-->", "act4"),
        ("act4", "-->", "completed"),
        ("undo3", "-->", "undo1"),
        ("undo1", "-->", "compensated"),
        ("act1", "-. fails .->", "compensated"),
        ("act1", "-. in doubt .->", "undo1"),
        ("act2", "-. fails .->", "undo1"),
        ("act3", "-. fails .->", "undo1"),
        ("act3", "-. in doubt .->", "undo3"),
        ("act4", "-. fails, tried again later .->", "act4"),
    }


def test_whatever_steps_are_called_the_flowchart_keeps_to_mermaids_grammar() -> None:
    head, *lines = mermaid_graph(Whole).splitlines()

    assert head == "flowchart TD"
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert "1. a #34;quoted#34; #91;name#93; #35;1#59; #37;#37; #96;x#96; --#62; end" in lines[1]


def test_waits_and_sleeps_are_told_with_their_limits_and_what_follows() -> None:
    lines = text_graph(Waiting).plain.splitlines()

    assert [re.split(r"\s{2,}", line.strip()) for line in lines[5:9]] == [
        ["2", "courier", "(wait)", "1", "2 d", f"without a signal in time: compensates {Undone.name}"],
        ["3", "nap", "(sleep)", "-", "3 h", "goes on after that time"],
        ["4", "patience", "(wait, pivot)", "1", "-", "waits without a limit"],
        ["5", "feedback", "(wait)", "1", "90 s", "without a signal in time: goes on"],
    ]


def test_waits_and_sleeps_are_drawn() -> None:
    chart = mermaid_graph(Waiting)

    assert [line for line in chart.splitlines()[1:] if not LINE.fullmatch(line)] == []
    assert edges(chart) - {("start", "-->", "act1"), ("undo1", "-->", "compensated")} == {
        ("act1", "-->", "act2"),
        ("act1", "-. fails .->", "compensated"),
        ("act1", "-. in doubt .->", "undo1"),
        ("act2", "-->", "act3"),
        ("act2", "-. no signal in 2 d .->", "undo1"),
        ("act3", "-->", "act4"),
        ("act4", "-->", "act5"),
        ("act5", "-->", "completed"),
        ("act5", "-. no signal in 90 s .->", "completed"),
    }
    for label in ("2. courier, waits for a signal", "3. nap, sleeps 3 h", "4. patience, the pivot, waits for a signal"):
        assert f'(["{label}"])' in chart


def test_json_has_the_kind_of_each_step_and_what_follows_a_timeout() -> None:
    steps = graph_as_json(Waiting)["steps"]

    assert [(step["kind"], step["timeout"], step["on_timeout"]) for step in steps] == [
        ("step", None, None),
        ("wait", 172_800.0, "abort"),
        ("sleep", 10_800.0, None),
        ("wait", None, None),
        ("wait", 90.0, "go on"),
    ]


def test_json_has_every_step_with_its_limits_and_what_follows() -> None:
    data = graph_as_json(Whole)

    assert (data["name"], data["version"], data["definition"]) == ("whole", 1, Whole.graph.hash)
    assert [step["pivot"] for step in data["steps"]] == [False, False, True, False]
    assert [step["compensates"] for step in data["steps"]] == [True, False, True, False]
    assert data["steps"][0]["retry"] == {
        "max_attempts": 2,
        "first_delay": 0.5,
        "factor": 2.0,
        "max_delay": 60.0,
        "jitter": 0.1,
        "retry_on": ["OSError", "KeyError"],
    }
    assert data["steps"][2]["if_it_fails"] == {
        "falls_back_to": None,
        "tried_again": False,
        "compensates": [Undone.name],
    }
    assert data["steps"][3]["if_it_fails"] == {"falls_back_to": None, "tried_again": True, "compensates": []}


@pytest.fixture
def environment() -> dict[str, str]:
    """No database: it needs none."""
    return {"SAGAS_DATABASE_URL": "postgresql+psycopg://me:s3cr3t@127.0.0.1:1/shop", "SAGAS_MODULES": SHOP}


def test_the_command_needs_the_code_and_no_database(sagas: Command) -> None:
    text, chart = sagas("graph", "place-order"), sagas("graph", "place-order", "--mermaid")
    data = json.loads(sagas("graph", "place-order", "--json").stdout)
    unknown = sagas("graph", "place-odrer")

    assert text.stdout.startswith("place-order, version 1 (PlaceOrder)\n")
    assert chart.stdout.startswith("flowchart TD\n")
    assert [step["name"] for step in data["steps"]] == ["reserve", "pay"]
    assert unknown.stderr.startswith("error: no saga named 'place-odrer' is known here (known: place-order): ")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert sagas("graph", "place-order", "--mermaid", "--json").exit_code == 2


def test_the_table_has_fallbacks_under_their_step() -> None:
    lines = text_graph(Alternated).plain.splitlines()
    card, invoice, charged, mail, letter = (re.split(r"\s{2,}", line.strip()) for line in lines[5:10])

    assert (card[:2], card[-1]) == (["2", "by-card"], "falls back to by-invoice")
    assert (invoice[0], *invoice[-2:]) == ("or by-invoice", "1.5 s", "compensates by-card; itself before, if in doubt")
    assert charged[-1] == "compensates by-invoice, by-card; itself before, if in doubt"
    assert (mail[-1], letter[0]) == ("falls back to letter", "or letter")
    assert letter[-1] == "past the pivot: tried again later, never undone"
    assert [line.split()[0] for line in lines[13:16]] == ["charged", "by-invoice", "by-card"]


def test_the_flowchart_goes_from_a_step_to_its_fallback() -> None:
    assert [line for line in mermaid_graph(Alternated).splitlines()[1:] if not LINE.fullmatch(line)] == []
    assert edges(mermaid_graph(Alternated)) == {
        ("start", "-->", "act1"),
        ("act1", "-->", "act2"),
        ("act1", "-. fails .->", "compensated"),
        ("act2", "-->", "act3"),
        ("act2", "-. fails .->", "act2_1"),
        ("act2_1", "-->", "act3"),
        ("act2_1", "-. fails .->", "undo2"),
        ("act2_1", "-. in doubt .->", "undo2_1"),
        ("undo2_1", "-->", "undo2"),
        ("undo2", "-->", "compensated"),
        ("act3", "-->", "act4"),
        ("act3", "-. fails .->", "undo2_1"),
        ("act3", "-. in doubt .->", "undo3"),
        ("undo3", "-->", "undo2_1"),
        ("act4", "-->", "completed"),
        ("act4", "-. fails .->", "act4_1"),
        ("act4_1", "-->", "completed"),
        ("act4_1", "-. fails, tried again later .->", "act4_1"),
    }


def test_json_has_the_fallbacks_of_each_step() -> None:
    plain, card, _, mail = graph_as_json(Alternated)["steps"]

    assert plain["fallbacks"] == []
    assert card["if_it_fails"] == {"falls_back_to": "by-invoice", "tried_again": False, "compensates": []}
    assert [(each["name"], each["timeout"], each["if_it_fails"]) for each in card["fallbacks"]] == [
        ("by-invoice", 1.5, {"falls_back_to": None, "tried_again": False, "compensates": ["by-card"]})
    ]
    assert [each["if_it_fails"]["tried_again"] for each in (mail, *mail["fallbacks"])] == [False, True]
