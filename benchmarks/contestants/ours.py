"""Our sagas, run in place: `engine.run`, three steps that do nothing."""

from __future__ import annotations

import os

from benchmarks.contestants.protocol import serve
from benchmarks.sagas import Nothing, ThreeSteps
from sagas import PostgresSagaStorage, SagaEngine


def main() -> None:
    """Run sagas through the engine as a user would."""
    engine = SagaEngine(PostgresSagaStorage(os.environ["BENCH_URL"].replace("postgresql:", "postgresql+psycopg:", 1)))
    serve(lambda: engine.run(ThreeSteps, Nothing(order_id="o-1")))


if __name__ == "__main__":
    main()
