"""The questions: one statement and one file each, loaded as those of the PostgreSQL storage are.

Each bounds what it reads. Unfinished sagas are in four partial indexes (`sagas.storage.tables`), which the planner uses
only for their conditions, word for word; finished ones are in an index by time, and an id begins with the time at which
its saga was started.
"""

from __future__ import annotations

from typing import Final

from sagas.storage.postgres.queries import loader

query: Final = loader(__name__)
