"""Sagas on brokers that people have: RabbitMQ, Redis with TLS, Redis behind Sentinel, Valkey by its own name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import kombu.pools
import pytest
import redis
import trustme
from celery import Celery

from sagas import PostgresSagaStorage, SagaEngine, SagaStatus, Settings, api
from sagas.celery.broker_url import BrokerUrl
from sagas.celery.dispatch import CeleryDispatcher
from sagas.celery.doctor import broker as queues
from sagas.errors import ConfigurationError
from sagas.storage.records import Claim
from sagas.testing.processes import wait_until
from tests.integration.celery.conftest import Start, wait_finished
from tests.integration.celery.samples import Job, ThreeSteps, marks
from tests.integration.celery.shop import make
from tests.servers import RabbitServer, RedisServer, SentinelServer, empty_rabbit, require


def sagas_run(celery: Start, engine: SagaEngine, app: Celery, folder: Path) -> None:
    """See sagas run, forward and backward, sent by whoever starts them and found by a scan."""
    celery("worker")
    celery("beat")
    good = engine.start_many(ThreeSteps, [Job(str(folder))] * 3)
    bad = engine.start(ThreeSteps, Job(str(folder), fail="third"))
    unsent = SagaEngine(engine.storage, settings=engine.settings).start(ThreeSteps, Job(str(folder)))
    for saga_id in [*good, unsent]:
        assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED
    assert wait_finished(engine, bad).status is SagaStatus.COMPENSATED
    assert len(marks(folder, "second")) == 5
    (line,) = queues(app)
    assert isinstance(line, str)
    assert " answers; waiting: " in line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


class TestRabbit:
    """RabbitMQ, with classic queues and with quorum queues."""

    @pytest.fixture(scope="class")
    def broker_server(self, server_directory: Path) -> Iterator[str]:
        require("rabbitmq-server")
        with RabbitServer(server_directory / "rabbit") as server:
            yield server.url

    @pytest.fixture
    def broker_url(self, broker_server: str) -> str:
        empty_rabbit(broker_server)
        return broker_server

    @pytest.mark.slow(23)
    def test_sagas_run_on_classic_queues(self, celery: Start, engine: SagaEngine, app: Celery, folder: Path) -> None:
        sagas_run(celery, engine, app, folder)

    @pytest.mark.brokers
    def test_sagas_of_an_application_with_quorum_queues_run_on_such(
        self,
        celery: Start,
        environment: dict[str, str],
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(api, "_defaults", {})
        quorum = {"task_default_queue_type": "quorum", "task_protocol": 2}
        environment |= {"SHOP_BROKER": environment["SAGAS_BROKER_URL"], "SHOP_FOLDER": str(folder)}
        environment["SHOP_SETTINGS"] = json.dumps(quorum)
        shop = make(environment["SHOP_BROKER"], set_as_current=False, **quorum)
        celery("worker", "-Q", "shop,sagas.scan,sagas.run,sagas.recover", application="tests.integration.celery.shop")
        celery("beat", application="tests.integration.celery.shop")
        storage = PostgresSagaStorage(environment["SAGAS_DATABASE_URL"])
        settings = Settings.from_environment(environment)
        engine = SagaEngine(storage, dispatcher=CeleryDispatcher(shop), settings=settings, sagas=[ThreeSteps])
        started = engine.start_many(ThreeSteps, [Job(str(folder))] * 3)
        unsent = SagaEngine(storage, settings=settings).start(ThreeSteps, Job(str(folder)))
        for saga_id in [*started, unsent]:
            assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED
        storage.close()

        # Another application on the same broker, whose queues are of the other kind.
        kombu.pools.reset()  # what is declared is remembered with each connection
        classic = make(environment["SHOP_BROKER"], set_as_current=False)
        assert CeleryDispatcher(classic).send([Claim(uuid4(), 0, pending=True)]) == 0
        assert "inequivalent arg 'x-queue-type' for queue 'sagas.run'" in caplog.text
        assert "give all applications on this broker the same task_default_queue_type" in caplog.text
        celery("worker", wait=False).wait_for_log("inequivalent arg 'x-queue-type' for queue 'sagas.")


@pytest.mark.brokers
class TestRedis:
    """Debian's Redis."""

    @pytest.fixture
    def broker_url(self, server_directory: Path) -> Iterator[str]:
        require("redis-server")
        with RedisServer(server_directory / "redis") as server:
            yield server.url

    def test_sagas_run(self, celery: Start, engine: SagaEngine, app: Celery, folder: Path) -> None:
        sagas_run(celery, engine, app, folder)


class TestTls:
    """Redis with TLS and a password, as hosting providers have it."""

    @pytest.fixture
    def broker_url(self, server_directory: Path, tmp_path: Path, environment_of_tls: dict[str, str]) -> Iterator[str]:
        require("redis-server")
        files = server_directory / "certificates"
        files.mkdir(exist_ok=True)
        files.chmod(0o755)
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        certificate, key, root = files / "server.pem", files / "server.key", tmp_path / "root.pem"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        key.chmod(0o644)
        authority.cert_pem.write_to_path(str(files / "root.pem"))
        authority.cert_pem.write_to_path(str(root))
        environment_of_tls["SSL_CERT_FILE"] = str(root)  # where OpenSSL looks for authorities
        tls = (certificate, key, files / "root.pem")
        with RedisServer(server_directory / "tls", tls=tls, requirepass="s3cr3t") as server:
            yield server.url.replace("://", "://default:s3cr3t@")

    @pytest.fixture
    def environment_of_tls(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        return _Environment(monkeypatch)

    def test_sagas_run_where_the_authority_is_known(
        self, celery: Start, engine: SagaEngine, app: Celery, folder: Path, tmp_path: Path
    ) -> None:
        sagas_run(celery, engine, app, folder)
        assert app.backend.client.ping()
        logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
        assert "rediss://***@127.0.0.1:" in logs
        assert "s3cr3t" not in logs

    @pytest.mark.parametrize(
        ("query", "works"),
        [
            ("", False),
            ("?ssl_cert_reqs=required", False),
            ("?ssl_cert_reqs=none", True),
            ("?ssl_cert_reqs=None", True),
            ("?ssl_cert_reqs=CERT_NONE", True),
            ("?ssl_cert_reqs=required&ssl_ca_certs={root}", True),
            ("?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={root}&ssl_check_hostname=false", True),
        ],
    )
    def test_the_certificate_is_checked_as_the_url_says(
        self,
        query: str,
        works: bool,
        broker_url: str,
        tmp_path: Path,
        application: Callable[[str], Celery],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        app = application(broker_url + query.format(root=tmp_path / "root.pem"))
        (finding,) = queues(app)
        assert isinstance(finding, str) == works
        assert "s3cr3t" not in str(finding)
        if works:
            assert app.backend.client.ping()


class _Environment(dict[str, str]):
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __setitem__(self, name: str, value: str) -> None:
        self._monkeypatch.setenv(name, value)


@pytest.mark.brokers
class TestSentinel:
    """Redis behind Sentinel, whose master goes."""

    @pytest.fixture
    def servers(self, server_directory: Path) -> Iterator[tuple[RedisServer, RedisServer, SentinelServer]]:
        require("redis-sentinel")
        with RedisServer(server_directory / "master") as master:
            replica = RedisServer(server_directory / "replica", replicaof=f"127.0.0.1 {master.port}")
            with replica, SentinelServer(server_directory / "sentinel", master) as sentinel:
                yield master, replica, sentinel

    @pytest.fixture
    def broker_url(self, servers: tuple[RedisServer, RedisServer, SentinelServer]) -> str:
        return f"sentinel://127.0.0.1:{servers[2].port}/0?master_name=shop"

    def test_sagas_survive_a_failover(
        self,
        celery: Start,
        engine: SagaEngine,
        app: Celery,
        folder: Path,
        servers: tuple[RedisServer, RedisServer, SentinelServer],
    ) -> None:
        master, replica, sentinel = servers
        with redis.Redis("127.0.0.1", sentinel.port) as client:
            wait_until(lambda: client.sentinel_slaves("shop"), what="the replica")
        sagas_run(celery, engine, app, folder)

        master.kill()
        during = engine.start(ThreeSteps, Job(str(folder)))
        with redis.Redis("127.0.0.1", sentinel.port) as client:
            wait_until(lambda: client.sentinel_get_master_addr_by_name("shop")[1] == replica.port, what="the failover")
        after = engine.start(ThreeSteps, Job(str(folder)))
        for saga_id in (during, after):
            assert wait_finished(engine, saga_id).status is SagaStatus.COMPLETED


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Celery]:
    """Returns the sagas' own application for a URL."""
    from sagas.celery.application import SagaCelery
    from sagas.celery.installation import add_sagas

    monkeypatch.setattr(api, "_defaults", {})

    def make_one(url: str) -> Celery:
        app = SagaCelery(Settings(broker_url=url))
        add_sagas(app)
        return app

    return make_one


def test_valkey_works_by_its_own_name(broker_server: str, application: Callable[[str], Celery]) -> None:
    app = application(broker_server.replace("redis://", "valkey://"))
    (line,) = queues(app)
    assert " answers; waiting: " in str(line)
    assert app.backend.client.ping()


def test_results_go_to_the_first_of_several_brokers(application: Callable[[str], Celery], broker_server: str) -> None:
    app = application(f"{broker_server};redis://:s3cr3t@127.0.0.1:1/0")
    (line,) = queues(app)
    assert str(line).startswith(f"{broker_server};redis://***@127.0.0.1:1/0 answers")
    assert app.backend.client.ping()


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("sentinel://:s3cr3t@127.0.0.1:1/0", "not the master that is asked for: write it as sentinel://host"),
        ("rediss://:s3cr3t@127.0.0.1:1/0?ssl_cert_reqs=s3cr3t", "write required, optional or none"),
    ],
)
def test_what_a_url_lacks_is_one_sentence(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what) as caught:
        BrokerUrl.parse(url, setting="SAGAS_BROKER_URL")
    assert "s3cr3t" not in str(caught.value)
