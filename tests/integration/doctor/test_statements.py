"""No statement reads a table as a whole, however many sagas are finished."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from sagas.doctor import statements

PARAMETERS = {"limit": 100, "seconds": 60.0}


@pytest.mark.parametrize("name", ["DEFINITIONS", "DEAD", "LATE", "QUEUED_LONG"])
def test_only_partial_indexes_are_read(database_url: str, name: str) -> None:
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "INSERT INTO saga_executions (id, name, context, status, available_at, finished_at) SELECT "
            "gen_random_uuid(), 'trip', '{}', 'COMPLETED', 'infinity', now() FROM generate_series(1, 20000)"
        )
        connection.exec_driver_sql(
            "INSERT INTO saga_executions (id, name, context, status, lease_owner, available_at) SELECT "
            "gen_random_uuid(), 'trip', '{}', (ARRAY['PENDING', 'RUNNING', 'FAILED'])[mod(n, 3) + 1], "
            "(ARRAY[NULL, 'queue', 'worker-1'])[mod(n / 3, 3) + 1], "
            "CASE mod(n, 2) WHEN 0 THEN 'infinity' ELSE now() - interval '1 day' END FROM generate_series(1, 900) n"
        )
        connection.exec_driver_sql("VACUUM ANALYZE saga_executions")
        statement = f"EXPLAIN (ANALYZE, FORMAT JSON) {getattr(statements, name)}"
        explained = connection.exec_driver_sql(statement, PARAMETERS).scalar_one()
    engine.dispose()

    read, left = set(), [explained[0]["Plan"]]
    while left:
        node = left.pop()
        left += node.get("Plans", [])
        if "Scan" in node["Node Type"] and node["Node Type"] not in ("Subquery Scan", "CTE Scan"):
            read.add(node.get("Index Name", node["Node Type"]))
    read.discard("Bitmap Heap Scan")  # of what the index below it found
    assert read
    assert read <= {"saga_executions_due", "saga_executions_unstarted", "saga_executions_queued"}
