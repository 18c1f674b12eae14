"""The console, on a real PostgreSQL and in a real browser."""
