"""Pausing and resuming saga names."""

from __future__ import annotations

from abc import ABC, abstractmethod

from sagas.storage.records import Pause


class Pausing(ABC):
    """Pauses and resumes saga names."""

    @abstractmethod
    def pause(self, name: str, *, actor: str, reason: str) -> int:
        """Pause a saga name and its sagas that are due. Return how many sagas are paused now.

        From then on, no saga of that name is sent, or acquired by a message. Holders give their sagas back at the next
        step's boundary. An operator may still acquire one by hand. Pausing again changes the reason.

        Raises:
            UnstorableText: the name, the actor or the reason has a character that no database can store.
        """

    @abstractmethod
    def resume(self, name: str) -> int:
        """End the pause of a saga name, and make its paused sagas ready. Return how many."""

    @abstractmethod
    def pauses(self) -> list[Pause]:
        """Return the names that are paused, in alphabetical order."""
