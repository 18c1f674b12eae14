"""The process in which a worker runs one suspect saga; `sagas.celery.alone` starts it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any

from celery.app.utils import find_app

from sagas import api
from sagas.celery import metrics
from sagas.celery.dispatch import CeleryDispatcher


def main(given: dict[str, Any]) -> None:
    """Recover one saga, and write its report to the file of the parent's."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which tells its children
    app = find_app(given["application"])
    app.loader.import_default_modules()  # as a worker does; it sets Django up, too
    app.log.setup(loglevel=given["loglevel"], redirect_stdouts=False)
    engine = api.new_engine(
        dispatcher=CeleryDispatcher(app),
        node=given["node"],
        # Without its parent, nobody would see it crash before the lease has run out.
        stopping=lambda: stopping.is_set() or os.getppid() != given["parent"],
        observer=metrics.of_child(),
    )
    api.configure(engine)
    report = engine.recover(**given["saga"])
    with os.fdopen(given["answer"], "w") as answer:
        json.dump(report.as_json(), answer)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
