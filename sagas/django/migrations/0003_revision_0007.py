"""The tables as of revision 0007."""

from __future__ import annotations

from django.db.migrations import Migration as DjangoMigration

from sagas.django.tables import migration_to


class Migration(DjangoMigration):
    """Brings the tables to revision 0007."""

    dependencies = [("sagas", "0002_revision_0006")]
    # The operation has its own connection and its own transaction.
    atomic = False
    operations = [migration_to("0007")]
