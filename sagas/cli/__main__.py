"""`python -m sagas.cli` does what `sagas` does."""

from sagas.cli import main

main()
