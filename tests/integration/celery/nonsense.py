"""Messages that nobody can understand: what stands in a queue of Redis, by what is wrong with it."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

from sagas.celery.names import RUN_QUEUE, RUN_TASK

_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def envelope(
    body: Any, queue: str = RUN_QUEUE, *, encoded: bool = False, without: tuple[str, ...] = (), **changes: Any
) -> dict[str, Any]:
    """A message as Celery's, around this body; `headers__task` and the like change parts of its parts."""
    text = body if encoded else json.dumps(body)
    made: dict[str, Any] = {
        "body": base64.b64encode(text.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": RUN_TASK, "id": str(uuid.uuid4()), "argsrepr": "", "kwargsrepr": ""},
        "properties": {
            "correlation_id": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    for name, value in changes.items():
        *parents, last = name.split("__")
        part = made
        for parent in parents:
            part = part[parent]
        part[last.replace("_", "-") if last.startswith("content") else last] = value
    for name in without:
        *parents, last = name.split("__")
        part = made
        for parent in parents:
            part = part[parent]
        del part[last]
    return made


GOOD = [[str(uuid.uuid4())], {"version": 0}, _EMBED]

ENVELOPES: dict[str, dict[str, Any]] = {
    "a body null": envelope(None),
    "a body []": envelope([]),
    "a body [[1]]": envelope([[1]]),
    "a body of four": envelope([[], {}, {}, 1]),
    "a body that is a number": envelope(5),
    "a body that is text": envelope("text"),
    "an empty body": envelope("", encoded=True),
    "a body that is no JSON": envelope("{not json", encoded=True),
    "a body nested too deeply": envelope("[" * 100_000, encoded=True),
    "a body that is no base64": envelope(GOOD) | {"body": "!"},
    "a body of no text": envelope(GOOD) | {"body": 5},
    "no body": envelope(GOOD, without=("body",)),
    "bytes that are no text": envelope(GOOD) | {"body": base64.b64encode(b"\xff\xfe\xfd").decode()},
    "an encoding of the body that nobody knows": envelope(GOOD, properties__body_encoding="rot13"),
    "a content type that is not accepted": envelope(GOOD, content_type="application/x-python-serialize"),
    "a content type that nobody knows": envelope(GOOD, content_type="application/x-nothing"),
    "a content type that is no text": envelope(GOOD, content_type=[1]),
    "a compression that nobody knows": envelope(GOOD, headers__compression="application/x-nothing"),
    "no headers": envelope(GOOD, without=("headers",)),
    "headers that are a list": envelope(GOOD, headers=[1]),
    "no task": envelope(GOOD, without=("headers__task",)),
    "no id": envelope(GOOD, without=("headers__id",)),
    "an id that is a list": envelope(GOOD, headers__id=[1]),
    "a task that is a list": envelope(GOOD, headers__task=[1]),
    "an unknown task": envelope(GOOD, headers__task="shop.charge\n2031-01-01 FORGED \u202e"),
    "an unknown task without id": envelope(GOOD, headers__task="shop.charge", without=("headers__id",)),
    "time limits that are text": envelope(GOOD, headers__timelimit="xy"),
    "time limits of three": envelope(GOOD, headers__timelimit=[1, 2, 3]),
    "an eta that is no time": envelope(GOOD, headers__eta="tomorrow"),
    "an expiry that is no time": envelope(GOOD, headers__expires={"a": 1}),
    "properties that are text": envelope(GOOD) | {"properties": "p"},
    "no properties": envelope(GOOD, without=("properties",)),
    "no delivery information": envelope(GOOD, without=("properties__delivery_info",)),
    "a delivery tag that is a list": envelope(GOOD, properties__delivery_tag=[1]),
    "no delivery tag": envelope(GOOD, properties__delivery_tag=None),
    "the protocol before, of an unknown task": envelope(
        {"task": "shop.charge", "id": "1", "args": [], "kwargs": {}}, headers={}
    ),
    "the protocol before, without id": envelope({"task": "sagas.run_saga", "args": [], "kwargs": {}}, headers={}),
    "the protocol before, with arguments that are none": envelope(
        {"task": "sagas.run_saga", "id": "1", "args": 1, "kwargs": 1}, headers={}
    ),
    "a huge one": envelope(["x" * 2_000_000]),
}
ELEMENTS = {
    "no JSON": b"not json",
    "no text": b"\xff\xfe",
    "nothing": b"",
    "a number": b"5",
    "null": b"null",
    "a list": b"[]",
    "an object": b"{}",
    "a text": b'"text"',
    "half of a message": json.dumps(envelope(GOOD)).encode()[:200],
}
