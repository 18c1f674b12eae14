"""What is the state of this saga, of all sagas? Reads for the command line, metrics, the doctor and consoles."""

from sagas.inspection.inspector import Inspector

__all__ = ["Inspector"]
