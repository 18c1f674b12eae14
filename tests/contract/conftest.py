"""As in tests/integration/storage: one database for a whole module, emptied between its tests."""

from tests.integration.storage.conftest import engine, module_engine, storage

__all__ = ["engine", "module_engine", "storage"]
