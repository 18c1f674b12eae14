"""The last resort: a process that sees the demo end, however it ends, and removes whatever it left behind.

It is run as a script, by path, so that it is there at once and needs nothing but psutil.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

#: Every process of the demo has its directory's name in this variable.
MARK = "SAGAS_DEMO_DIRECTORY"
#: The servers get no environment, and die with the demo on Linux; elsewhere they are known by where they work.
_SERVERS = ("postgres", "valkey-server")
_AT_MOST_SECONDS = 15.0


def sweep(directory: Path) -> None:
    """Kill every process that belongs to the directory, and remove it."""
    deadline = time.monotonic() + _AT_MOST_SECONDS
    while (left := list(_processes(directory))) or directory.exists():
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        # What was about to be written by a process that dies may come back, so once may not be enough.
        shutil.rmtree(directory, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _processes(directory: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and _belongs(process, directory):
                yield process


def _belongs(process: psutil.Process, directory: Path) -> bool:
    if process.name() in _SERVERS:
        return Path(process.cwd()).is_relative_to(directory)
    return process.environ().get(MARK) == str(directory)


if __name__ == "__main__":
    # Nothing is ever written to it: it ends when the demo does, and the kernel sees to that.
    sys.stdin.read()
    sweep(Path(sys.argv[1]))
