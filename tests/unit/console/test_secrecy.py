"""Secret fields are hidden, and so are their values in messages."""

from __future__ import annotations

import json

import pytest

from sagas import Call, Step
from sagas.console.secrecy import HIDDEN, UNREADABLE, Secrets
from sagas.errors import DefinitionError
from sagas.graph import Graph
from tests.samples import Trip, saga_of

CONTEXT = json.dumps(
    {
        "card": "4111-22",
        "customer": {"name": "Kim", "phone": "555-0199", "more": {"card": [1, 2, {"x": "9876"}]}},
        "phone": "front desk",
        "lines": [{"card": "5222-33"}, {"sku": 7}],
        "pin": 123456,
    }
)


def test_names_are_hidden_everywhere_and_paths_where_they_are() -> None:
    shown = json.loads(Secrets(["card", "customer.phone", "pin"]).pretty(CONTEXT))

    assert shown == {
        "card": HIDDEN,
        "customer": {"name": "Kim", "phone": HIDDEN, "more": {"card": HIDDEN}},
        "phone": "front desk",
        "lines": [{"card": HIDDEN}, {"sku": 7}],
        "pin": HIDDEN,
    }


def test_values_are_hidden_where_messages_quote_them() -> None:
    secrets = Secrets(["card", "customer.phone", "pin"], [CONTEXT])

    said = secrets.censored("4111-22 of Kim, 555-0199, was refused with 123456 and 9876; 5222-33 too; desk")

    assert said == f"{HIDDEN} of Kim, {HIDDEN}, was refused with {HIDDEN} and {HIDDEN}; {HIDDEN} too; desk"


def test_without_secret_fields_all_is_shown() -> None:
    assert json.loads(Secrets([], [CONTEXT]).pretty(CONTEXT)) == json.loads(CONTEXT)
    assert Secrets([], [CONTEXT]).censored("4111-22") == "4111-22"


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "{oops", '{"card": ' + "9" * 5000 + "}"])
def test_what_cannot_be_read_is_not_shown_at_all(text: str) -> None:
    assert Secrets(["card"], [text]).pretty(text) == UNREADABLE


class Book(Step[Trip]):
    def act(self, context: Trip, call: Call) -> None: ...


def test_the_marks_of_a_saga_are_stored_with_its_graph() -> None:
    marked = saga_of([Book], secret_fields=["note", "customer.phone"])
    plain = saga_of([Book])

    assert Graph.parse(marked.graph.text) == marked.graph
    assert marked.graph.secret_fields == ("note", "customer.phone")
    assert "secret" not in plain.graph.text  # or its hash would be another than that of sagas already started


@pytest.mark.parametrize("fields", ["note", [7], [""], None])
def test_marks_that_are_no_names_are_refused(fields: object) -> None:
    with pytest.raises(DefinitionError, match="secret_fields"):
        saga_of([Book], secret_fields=fields)
