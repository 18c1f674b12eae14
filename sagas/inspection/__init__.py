"""Reads the state of one saga or of all sagas, for the command line, metrics, the doctor and consoles."""

from sagas.inspection.inspector import Inspector

__all__ = ["Inspector"]
