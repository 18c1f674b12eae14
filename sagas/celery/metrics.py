"""A worker's metrics: its children write them, and the parent serves them for Prometheus, also after a child has died.

The children write to files that the parent reads; this is prometheus_client's multiprocess mode. Metrics that the steps
of your sagas define with the same library are served as well.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sagas import api
from sagas.errors import ConfigurationError
from sagas.telemetry.logs import saga_logger

if TYPE_CHECKING:
    from prometheus_client import Metric

    from sagas.telemetry.observer import Observer

logger = saga_logger(__name__)

HOST: Final = "127.0.0.1"
#: Directory of prometheus_client's multiprocess mode; a directory that the user has set is used.
_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
#: Kinds of metrics whose values are summed over dead processes.
_ADDED_UP: Final = ("counter", "histogram", "summary")

_served: list[WorkerMetrics] = []


class WorkerMetrics:
    """Serves one worker's metrics; made before its children are forked.

    Args:
        directory: the processes of this worker write their metrics into it.
    """

    def __init__(self, directory: Path) -> None:
        from sagas.telemetry.metrics import Metrics

        self.observer: Observer = Metrics(registry=None)
        self._directory = directory
        self._server: Any = None
        # A reader must not see half of the files moved.
        self._reading = threading.Lock()

    def serve(self, port: int) -> None:
        """Serve the metrics on this port of the loopback interface, in a thread.

        Raises:
            OSError: another program listens on this port.
        """
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry()
        registry.register(self)
        self._server, _ = start_http_server(port, HOST, registry)

    def collect(self) -> Iterable[Metric]:
        """Return the sums over this worker's living and dead processes."""
        from prometheus_client.multiprocess import MultiProcessCollector

        with self._reading:
            found: Iterable[Metric] = MultiProcessCollector(None, str(self._directory)).collect()
            return found

    def forked(self) -> None:
        """Close the parent's socket in a child; otherwise the child would keep the port after the parent has ended."""
        if self._server is not None:
            self._server.socket.close()

    def buried(self, pid: int) -> None:
        """Add a dead child's counters to one file for all dead children, and drop its gauges."""
        try:
            with self._reading:
                self._bury(pid)
        except Exception:
            logger.exception("the counters of the dead child %d could not be kept", pid)

    def _bury(self, pid: int) -> None:
        from prometheus_client.mmap_dict import MmapedDict
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid, str(self._directory))
        for kind in _ADDED_UP:
            left = self._directory / f"{kind}_{pid}.db"
            if left.exists():
                kept = MmapedDict(str(self._directory / f"{kind}_dead.db"))
                for key, value, _, _ in MmapedDict.read_all_values_from_file(left):
                    before, _ = kept.read_value(key)
                    kept.write_value(key, before + value, 0.0)
                kept.close()
                left.unlink()


def serve_metrics(port: int) -> WorkerMetrics | None:
    """Prepare this worker's metrics and serve them; if the port is in use, log a warning and return None.

    Call it before children are forked, and before the modules of the user's sagas define metrics of their own.

    Raises:
        ConfigurationError: prometheus_client is not installed.
    """
    try:
        from prometheus_client import values
    except ImportError as error:
        raise ConfigurationError(
            f"SAGAS_METRICS_PORT is set, and prometheus-client is not installed ({error}): "
            "pip install 'celery-sagas[metrics]', or leave the setting out."
        ) from error
    directory = Path(os.environ.get(_DIRECTORY) or _new_directory())
    os.environ[_DIRECTORY] = str(directory)
    if not values.ValueClass._multiprocess:
        # The library reads the variable on import, and Flower, if installed, has already imported the library.
        values.ValueClass = values.MultiProcessValue()
    metrics = WorkerMetrics(directory)
    try:
        metrics.serve(port)
    except OSError as error:
        logger.warning(
            "this worker's metrics are not served: SAGAS_METRICS_PORT is %d, where it cannot listen on %s (%s); "
            "give each worker on this host a port of its own",
            *(port, HOST, error),
        )
        return None
    _served.append(metrics)
    return metrics


def of_child() -> Observer | None:
    """Return what counts in a process that a worker has started, where the worker serves metrics; else None."""
    if api.settings().metrics_port is None or _DIRECTORY not in os.environ:
        return None
    from sagas.telemetry.metrics import Metrics

    return Metrics(registry=None)


def buried(pid: int) -> None:
    """Keep what a process counted that this worker had started and that has ended."""
    for metrics in _served:
        metrics.buried(pid)


def _new_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="sagas-metrics-"))
    atexit.register(_remove, directory, os.getpid())
    return directory


def _remove(directory: Path, maker: int) -> None:
    if os.getpid() == maker:
        shutil.rmtree(directory, ignore_errors=True)
