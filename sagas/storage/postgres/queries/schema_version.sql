-- The revision of the saga tables.
SELECT version_num FROM sagas_alembic_version
