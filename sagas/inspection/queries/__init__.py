"""The inspector's statements, one in each file. They are loaded like those of the PostgreSQL storage.

Each statement bounds what it reads. Unfinished sagas are in four partial indexes (`sagas.storage.tables`). The planner
uses such an index only if the statement has its condition word for word. Finished sagas are in an index by time. An id
begins with the time at which its saga was started.
"""

from __future__ import annotations

from typing import Final

from sagas.storage.postgres.queries import loader

query: Final = loader(__name__)
