"""One migration for each revision of the tables, so that Django knows when the database is behind the code.

The statements are in `sagas.storage.migrations`, for Django and for `sagas migrate` alike.
"""
