"""Pauses and resumes saga names."""

from __future__ import annotations

from dataclasses import replace

from sagas.storable import require_storable
from sagas.storage import rules
from sagas.storage.memory.rows import Rows
from sagas.storage.records import Pause, SagaState


class Pausing(Rows):
    """Pauses and resumes saga names."""

    # Pause and resume have the same parts as in PostgreSQL, so that tests can let others act between the parts.

    def pause(self, name: str, *, actor: str, reason: str) -> int:
        require_storable(name=name, actor=actor, reason=reason)
        with self._lock:
            self._begin_pause(name, actor=actor, reason=reason)
            return self._pause_due(name)

    def resume(self, name: str) -> int:
        with self._lock:
            self._begin_resume(name)
            return self._free_resumed()

    def _begin_pause(self, name: str, *, actor: str, reason: str) -> None:
        since = self._pauses[name].since if name in self._pauses else self._clock()
        self._pauses[name] = Pause(name=name, actor=actor, reason=reason, since=since)

    def _pause_due(self, name: str) -> int:
        with self._lock:
            if name not in self._pauses:
                return 0
            now = self._clock()
            states = (SagaState.READY, SagaState.WAITING)
            due = [s for s in self._sagas.values() if s.name == name and s.state in states and s.due(now)]
            for saga in due:
                self._put(replace(saga, state=SagaState.PAUSED, updated_at=now))
            return len(due)

    def _begin_resume(self, name: str) -> None:
        self._pauses.pop(name, None)

    def _free_resumed(self) -> int:
        with self._lock:
            paused = [saga for saga in self._sagas.values() if saga.state is SagaState.PAUSED]
            freed = [saga for saga in paused if saga.name not in self._pauses]
            for saga in freed:
                self._put(rules.resume(saga))
            return len(freed)

    def pauses(self) -> list[Pause]:
        with self._lock:
            return sorted(self._pauses.values(), key=lambda pause: pause.name)
