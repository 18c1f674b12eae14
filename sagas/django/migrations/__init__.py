"""One migration for each revision of the tables, so that Django knows when the database is behind the code.

Django and `sagas migrate` both use the statements in `sagas.storage.migrations`.
"""
