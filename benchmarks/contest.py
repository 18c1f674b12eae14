"""Run contestants in separate processes, which take turns under the same conditions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from types import TracebackType
from typing import Any, Self


class Contestant:
    """A process that runs sagas on request.

    Args:
        module: the module to run; it serves `benchmarks.contestants.protocol`.
        url: libpq's URL of the contestant's own database.
        python: interpreter of the environment that it runs in; default: this one.
    """

    def __init__(self, module: str, url: str, *, python: str = sys.executable) -> None:
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"BENCH_URL": url},
        )
        self._module = module
        #: For each turn, the processor time of the contestant's process for a saga.
        self.cpu_seconds: list[float] = []

    def wait_until_ready(self) -> None:
        """Wait until the contestant has connected and warmed up."""
        self._answer()

    def begin(self, seconds: float) -> None:
        """Let the contestant run sagas for so many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"go {seconds}\n")
        self._process.stdin.flush()

    def rate(self) -> float:
        """Wait for the end of the turn, and return the sagas a second."""
        answer = json.loads(self._answer())
        self.cpu_seconds.append(float(answer["cpu_seconds"] / max(answer["runs"], 1)))
        return float(answer["runs"] / answer["seconds"])

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} ended with exit code {self._process.wait()} before it had answered")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class Contest:
    """The result of a team.

    Attributes:
        rates: the team's sagas a second, in every round.
        cpu_microseconds: processor time of the first member for a saga; the minimum of the rounds.
    """

    rates: dict[str, list[float]]
    cpu_microseconds: dict[str, float]


def contest(teams: dict[str, Sequence[dict[str, Any]]], *, seconds: float, rounds: int) -> Contest:
    """Let teams of contestants take turns, round after round.

    Args:
        teams: name → the arguments of its members, who run at once.
        seconds: duration of a turn.
        rounds: number of turns of each team.
    """
    with ExitStack() as stack:
        ready: dict[str, list[Contestant]] = {}
        for name, members in teams.items():
            ready[name] = [stack.enter_context(Contestant(**arguments)) for arguments in members]
            for member in ready[name]:
                member.wait_until_ready()
        rates: dict[str, list[float]] = {name: [] for name in teams}
        for _ in range(rounds):
            for name, team in ready.items():
                for member in team:
                    member.begin(seconds)
                rates[name].append(sum(member.rate() for member in team))
        return Contest(rates, {name: 1e6 * min(team[0].cpu_seconds) for name, team in ready.items()})


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the rounds' ratios; a machine that slows down slows both turns of a round."""
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))
