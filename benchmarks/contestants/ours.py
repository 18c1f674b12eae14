"""Contestant: our sagas of three steps that do nothing, run in this process with `engine.run`."""

from __future__ import annotations

import os

from benchmarks.contestants.protocol import serve
from benchmarks.sagas import Nothing, ThreeSteps
from sagas import PostgresSagaStorage, SagaEngine


def main() -> None:
    """Run sagas through the engine, as a user does."""
    engine = SagaEngine(PostgresSagaStorage(os.environ["BENCH_URL"].replace("postgresql:", "postgresql+psycopg:", 1)))
    serve(lambda: engine.run(ThreeSteps, Nothing(order_id="o-1")))


if __name__ == "__main__":
    main()
