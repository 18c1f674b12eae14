"""Neither importing, installing nor starting changes what Celery is for the rest of the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: What a process with an application of its own does; it prints one line for each of its mails that is missing.
SHOP = """
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from celery import Celery, _state, current_app, shared_task

import sagas.celery
from sagas import Saga, Step, start

shop = Celery("shop", broker=os.environ["SHOP_BROKER"])
shop.set_default()
if "installed" in sys.argv:
    sagas.celery.install(shop)


@shared_task
def mail(to):
    pass


@dataclass
class Order:
    number: int = 0


class Ship(Step[Order]):
    def act(self, order, call):
        pass


class PlaceOrder(Saga[Order]):
    steps = [Ship]


def order(number):
    mail.delay("before")
    start(PlaceOrder, Order(number))
    mail.delay("after")
    return current_app.main, _state.default_app.main


with ThreadPoolExecutor(4) as pool:
    seen = {order(0), *pool.map(order, range(8))}
if "installed" not in sys.argv:
    assert sagas.celery.app.main == "sagas"
    seen.add(order(9))
assert seen == {("shop", "shop")}, seen
assert not any(name in os.environ for name in ("CELERY_LOADER", "CELERY_CONFIG_MODULE"))
"""

#: Imports every module of ours in one process, and compares what Celery and kombu keep for all applications.
IMPORT_EVERYTHING = """
import importlib
import pkgutil

import celery.signals
import kombu.serialization
import kombu.transport
from celery import Celery, _state
from celery.utils.dispatch import Signal
from celery.worker.control import Panel

import celery.app.trace, celery.apps.beat, celery.apps.worker, celery.bin.celery, celery.concurrency.prefork
import kombu.pools


def state():
    signals = {name: value for name, value in vars(celery.signals).items() if isinstance(value, Signal)}
    return {
        "default": _state.default_app,
        "current": _state._tls.current_app,
        "applications": len(_state._get_active_apps()),
        "on finalize": len(_state._on_app_finalizers),
        "signals": {name: len(signal.receivers or ()) for name, signal in signals.items()},
        "panel": sorted(Panel.data),
        "serializers": sorted(kombu.serialization.registry._encoders),
        "transports": dict(kombu.transport.TRANSPORT_ALIASES),
        "pools": len(kombu.pools.connections),
    }


before = state()
import sagas

names = [module.name for module in pkgutil.walk_packages(sagas.__path__, "sagas.")]
assert "sagas.celery.doctor" in names
for name in names:
    if not name.endswith(("__main__", "migrations.env", "launcher")) and ".versions." not in name:
        importlib.import_module(name)
after = state()
assert before == after, {name: (before[name], after[name]) for name in before if before[name] != after[name]}
"""


@pytest.fixture
def run(environment: dict[str, str]):
    """Runs a program in a process of its own."""

    def run(program: str, *arguments: str, **variables: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, **environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return run


@pytest.mark.parametrize("how", ["installed", "not installed"])
def test_both_mails_reach_the_shop_from_every_thread(run, how: str, broker_url: str) -> None:
    import redis

    shop_url = broker_url.removesuffix("/0") + "/5"
    shop, sagas = redis.Redis.from_url(shop_url), redis.Redis.from_url(broker_url)
    shop.flushdb()
    run(SHOP, how, SHOP_BROKER=shop_url, SAGAS_MODULES="")
    orders = 9 if how == "installed" else 10
    assert shop.llen("celery") == 2 * orders
    assert (shop.llen("sagas.run"), sagas.llen("sagas.run")) == ((orders, 0) if how == "installed" else (0, orders))
    assert sagas.llen("celery") == 0


def test_importing_every_module_changes_nothing_of_celery(run, tmp_path: Path) -> None:
    run(IMPORT_EVERYTHING)
