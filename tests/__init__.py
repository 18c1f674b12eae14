"""The tests, by what they need.

- unit: no server; a second or so for a module.
- contract: what every storage promises, on memory, on PostgreSQL, and behind PgBouncer; and that both storages agree.
- integration: real servers and processes. PostgreSQL, Celery, Django, the command, the documentation's examples.
- faults: every order of two workers' calls, real processes that are killed, frozen and cut off, outages of the broker.

Modules beside these folders are shared. A test that takes ten seconds or more is marked `slow`, and begun first.
"""
