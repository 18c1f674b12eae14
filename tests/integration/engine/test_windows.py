"""Programs that start sagas run where an operating system has no fork, as on Windows; workers need Unix."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sagas import PostgresSagaStorage, SagaStatus
from sagas.storage.records import SagaState
from sagas.storage.saga_filter import SagaFilter

# What Python lacks on Windows, taken away before anything else is imported; billiard asks which system it is on.
WITHOUT_UNIX = """
import asyncio, billiard.compat, multiprocessing, os, select, selectors, signal, socket, subprocess, sys, tempfile

for name in ("register_at_fork", "fork", "forkpty", "waitid", "wait3", "wait4", "uname", "getuid", "geteuid", "getgid",
             "setsid", "killpg", "mkfifo", "sysconf", "sched_getaffinity", "getloadavg", "pidfd_open", "WNOHANG"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "setitimer", "alarm",
             "pthread_kill", "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("poll", "epoll"):
    delattr(select, name)
for name in ("PollSelector", "EpollSelector"):
    delattr(selectors, name)
selectors.DefaultSelector = selectors.SelectSelector
if hasattr(socket, "TCP_USER_TIMEOUT"):
    del socket.TCP_USER_TIMEOUT
for module in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "syslog"):
    sys.modules[module] = None
"""

PROGRAM = """
import sagas, sagas.cli, sagas.telemetry.metrics, sagas.testing
from dataclasses import dataclass

@dataclass
class Greeting:
    name: str

class Say(sagas.Step[Greeting]):
    async def act(self, greeting, call):
        greeting.name += "!"

class Greet(sagas.Saga[Greeting]):
    steps = [Say]

sagas.start(Greet, Greeting("to a worker"))
print(sagas.run(Greet, Greeting("here")).outcome)
"""


def test_program_that_starts_sagas_needs_nothing_of_unix(
    storage: PostgresSagaStorage, database_url: str, broker_url: str, repository: Path
) -> None:
    settings = {"SAGAS_DATABASE_URL": database_url, "SAGAS_BROKER_URL": broker_url}

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_UNIX + PROGRAM],
        env={**os.environ, **settings},
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "completed\n"), done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    found = {(each.status, each.state) for each in storage.find(SagaFilter(name="greet"))}
    assert found == {(SagaStatus.COMPLETED, SagaState.FINISHED), (SagaStatus.PENDING, SagaState.QUEUED)}
