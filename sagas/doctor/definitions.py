"""Does the code that this environment has fit the sagas that are not finished, and do workers decline any?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sagas.doctor import statements as sql
from sagas.doctor.check import Check
from sagas.doctor.finding import Finding, Kind, problem, warning
from sagas.doctor.installation import Installation
from sagas.errors import LogDoesNotFit, UnknownSaga
from sagas.definition_version import Fingerprint
from sagas.plan import plan_as_started
from sagas.registry import Registry

#: Rows read from each end of each index.
_SAMPLE: Final = 2000

SAGA_UNKNOWN: Final = problem(
    "saga-unknown",
    what="unfinished sagas have a name that no code here knows",
    why="Every worker with this code declines them: they neither go on nor are undone.",
    cure="Add the module that defines the saga to SAGAS_MODULES of the workers; if it was renamed, list {name!r} in "
    "the `aliases` of the class (docs/changing-sagas.md).",
)
VERSION_UNKNOWN: Final = problem(
    "saga-version-unknown",
    what="unfinished sagas were started with a version that no class continues",
    why="Every worker with this code declines them: they neither go on nor are undone.",
    cure="Deploy the old class beside the new one, or list {version} in `continues` of a class that can go on with "
    "them (docs/changing-sagas.md).",
)
DOES_NOT_FIT: Final = problem(
    "definition-changed",
    what="unfinished sagas were started with steps that their class no longer has",
    why="Every worker with this code declines them: they neither go on nor are undone.",
    cure="Bring the step back, or list its former name in its `aliases`, or keep the old class beside the new one "
    "under a lower `version` (docs/changing-sagas.md). `sagas show {example}` shows one.",
)
DECLINED: Final = warning(
    "sagas-declined",
    what="workers decline unfinished sagas",
    why="Their code does not fit, so these wait for a worker whose code does. During a deployment that is as it should "
    "be; afterwards it never ends by itself.",
    cure="If no deployment is under way, deploy code that fits; `sagas show {example}` gives the reason for one.",
)


@dataclass(frozen=True, slots=True)
class _Misfit:
    kind: Kind
    why: str
    version: int


def _compare(installation: Installation) -> Iterator[Finding | str]:
    rows = installation.rows(sql.DEFINITIONS, {"limit": _SAMPLE})
    total = sum(row["count"] for row in rows)
    some = "at least " if total >= _SAMPLE else ""
    yield f"{some}{total} unfinished, {len(rows)} {'definition' if len(rows) == 1 else 'definitions'}"
    together: dict[tuple[str, _Misfit], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if misfit := _misfit(installation.registry, row["name"], row["definition_version"]):
            together[row["name"], misfit].append(row)
    for (name, misfit), alike in together.items():
        count = sum(row["count"] for row in alike)
        yield misfit.kind(
            f"{some}{_sagas(count)} named {name!r}: {misfit.why}",
            name=name,
            version=misfit.version,
            example=alike[0]["example"],
        )
    for row in rows:
        if row["declined"]:
            yield DECLINED(
                f"{some}{_sagas(row['declined'])} named {row['name']!r}: {row['decline']}", example=row["example"]
            )


def _misfit(registry: Registry, name: str, definition_version: str) -> _Misfit | None:
    version = Fingerprint.parse(definition_version).version
    try:
        plan_as_started(registry.fitting(name, definition_version), definition_version)
    except UnknownSaga as error:
        known = any(name in (saga.name, *saga.aliases) for saga in registry)
        return _Misfit(VERSION_UNKNOWN if known else SAGA_UNKNOWN, str(error), version)
    except LogDoesNotFit as error:
        return _Misfit(DOES_NOT_FIT, str(error), version)
    return None


def _sagas(count: int) -> str:
    return f"{count} unfinished {'saga' if count == 1 else 'sagas'}"


DEFINITIONS: Final = Check(
    "definitions",
    _compare,
    (SAGA_UNKNOWN, VERSION_UNKNOWN, DOES_NOT_FIT, DECLINED),
    needs=("schema", "code"),
)
