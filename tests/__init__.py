"""The tests, in folders by the servers that they need.

- unit: no server; about a second for a module. - contract: the promises of every storage, in memory, on PostgreSQL and
behind PgBouncer; both storages must agree.
- integration: real servers and processes. PostgreSQL, Celery, Django, the command, the documentation's examples.
- faults: every order of two workers' calls, real processes that are killed, frozen and cut off, outages of the broker.

Modules next to these folders are shared. A test that takes ten seconds or more is marked `slow`, and runs first.
"""
