"""Are the `SAGAS_...` variables such that they can work, together, and is each one read by somebody?"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from sagas.doctor.check import Check
from sagas.doctor.finding import Finding, problem, warning
from sagas.doctor.installation import Installation
from sagas.duration import duration
from sagas.errors import ConfigurationError
from sagas.settings import PREFIX, Settings

_SHORT_LEASE: Final = 5.0
_LONG_LEASE: Final = 300.0
_SHORT_RETENTION_DAYS: Final = 1.0

SETTINGS_UNUSABLE: Final = problem(
    "settings-unusable",
    what="a variable has a value that cannot work",
    why="Every process with this environment stops with this sentence: workers, beat, and programs that start sagas.",
    cure="Correct the variables that are named; docs/settings.md has each with its unit.",
)
SETTING_UNKNOWN: Final = warning(
    "setting-unknown",
    what="a variable begins as ours do, and nobody reads it",
    why="What it was meant to set keeps its default, without a word.",
    cure="{cure}",
)
LEASE_SHORT: Final = warning(
    "lease-short",
    what="the lease is shorter than 5 seconds",
    why="A pause of a machine, or a slow moment of the database, loses it: steps are repeated, and attempts counted.",
    cure="Set SAGAS_LEASE_SECONDS to 30, or at least to several times the longest pause of your machines.",
)
LEASE_LONG: Final = warning(
    "lease-long",
    what="the lease is longer than 5 minutes",
    why="When a host is lost, its sagas stand still for that long. A lease is renewed while a step runs, so it need "
    "not be as long as a step.",
    cure="Set SAGAS_LEASE_SECONDS to 30.",
)
SCAN_RARE: Final = warning(
    "scan-rarer-than-lease",
    what="scans are further apart than a lease is long",
    why="Nobody looks for what became due in between: the lease that is over, the retry, the backoff all wait for the "
    "next scan.",
    cure="Set SAGAS_SCAN_INTERVAL_SECONDS to 5, or at least below SAGAS_LEASE_SECONDS ({lease:g}).",
)
ONE_ATTEMPT: Final = warning(
    "one-attempt",
    what="the first failed attempt makes a saga dead",
    why="One worker that is killed during a recovery, one compensation that meets a service that is away: each needs "
    "an operator.",
    cure="Set SAGAS_MAX_RECOVERY_ATTEMPTS to 5.",
)
RETENTION_SHORT: Final = warning(
    "retention-short",
    what="finished sagas are kept for less than a day",
    why="An idempotency key is forgotten with its saga: a start that is repeated later starts the saga a second time.",
    cure="Set SAGAS_RETENTION_DAYS to more than the longest time after which a start may be repeated.",
)


def _read(installation: Installation) -> Iterator[Finding | str]:
    yield from _unknown(installation)
    try:
        settings = installation.settings = Settings.from_environment(installation.environment)
    except ConfigurationError as error:
        yield SETTINGS_UNUSABLE(str(error))
        return
    yield from contradictions(settings)


def _unknown(installation: Installation) -> Iterator[Finding]:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for variable in sorted(installation.environment):
        if variable.startswith(PREFIX) and variable not in known:
            nearest = get_close_matches(variable, known, n=1, cutoff=0.8)
            cure = f"Write {nearest[0]} instead." if nearest else "Take it away; docs/settings.md has those that are."
            yield SETTING_UNKNOWN(f"{variable} is set, and is no setting.", cure=cure)


def contradictions(settings: Settings) -> Iterator[Finding]:
    """Yield what is wrong with values that are possible each by itself."""
    lease, interval = settings.lease_seconds, settings.scan_interval_seconds
    if lease < _SHORT_LEASE:
        yield LEASE_SHORT(f"a lease lasts {lease:g} s and is renewed every {lease / 3:.2g} s.")
    if lease > _LONG_LEASE:
        yield LEASE_LONG(f"a lease lasts {duration(lease)}.")
    if interval > lease:
        yield SCAN_RARE(f"a scan runs every {interval:g} s, and a lease lasts {lease:g} s.", lease=lease)
    if settings.max_recovery_attempts == 1:
        yield ONE_ATTEMPT("SAGAS_MAX_RECOVERY_ATTEMPTS is 1.")
    if settings.retention_days is not None and settings.retention_days < _SHORT_RETENTION_DAYS:
        yield RETENTION_SHORT(f"finished sagas are pruned after {duration(settings.retention_days * 86_400)}.")


SETTINGS: Final = Check(
    "settings",
    _read,
    (SETTING_UNKNOWN, SETTINGS_UNUSABLE, LEASE_SHORT, LEASE_LONG, SCAN_RARE, ONE_ATTEMPT, RETENTION_SHORT),
)
