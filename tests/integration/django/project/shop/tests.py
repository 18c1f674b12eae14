"""Tests as a Django project has them, run by `manage.py test`."""

import asyncio
import gc
import json
import os
import threading
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from unittest import mock
from uuid import UUID

import django.db
from asgiref.sync import async_to_sync, sync_to_async
from billing.sagas import ApproveBill, Bill, SettleBill
from django.core.checks import Tags, run_checks
from django.core.management import CommandError, call_command, execute_from_command_line
from django.db import connection, connections, transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from proj.celery import app

from sagas import (
    SagaStatus,
    api,
    cancel,
    current_engine,
    recover_saga,
    run,
    signal,
    signal_async,
    start,
    start_async,
    start_many,
)
from sagas.celery.dispatch import CeleryDispatcher
from sagas.celery.names import RECOVER_QUEUE, RUN_QUEUE
from sagas.django import outside_transaction
from sagas.django.configuration import read_settings, url_of
from sagas.django.testing import sagas_in_memory
from sagas.errors import ConfigurationError, SagaNotFound
from shop.models import Order
from shop.sagas import PlaceOrder, Purchase


class Undone(Exception):
    pass


def exists(saga_id):
    """Whether the saga is committed: seen on another connection."""
    try:
        current_engine().storage.load(saga_id)
    except SagaNotFound:
        return False
    return True


def empty_queue():
    with app.connection_for_write() as broker:
        broker.default_channel.queue_purge(RUN_QUEUE) if sent() else None


def sent(queue=RUN_QUEUE):
    return CeleryDispatcher(app).length(queue)


class Transactions(TransactionTestCase):
    databases = {"default", "other"}

    def setUp(self):
        empty_queue()

    def test_a_saga_of_a_transaction_exists_and_is_sent_after_its_commit(self):
        with transaction.atomic():
            saga_id = start(PlaceOrder, Purchase("1"))
            self.assertFalse(exists(saga_id))
            self.assertEqual(sent(), 0)
        self.assertTrue(exists(saga_id))
        self.assertEqual(sent(), 1)

    def test_a_rolled_back_transaction_leaves_no_saga_and_no_message(self):
        with self.assertRaises(Undone), transaction.atomic(durable=True):
            saga_id = start(PlaceOrder, Purchase("1"))
            raise Undone
        self.assertFalse(exists(saga_id))
        self.assertEqual(sent(), 0)

    def test_a_rolled_back_savepoint_takes_its_sagas_with_it(self):
        with transaction.atomic():
            outer = start(PlaceOrder, Purchase("1"))
            with self.assertRaises(Undone), transaction.atomic():
                inner = start(PlaceOrder, Purchase("2"))
                with transaction.atomic():
                    innermost = start(PlaceOrder, Purchase("3"))
                raise Undone
            with transaction.atomic():
                kept = start_many(PlaceOrder, [Purchase("4"), Purchase("5")])
        self.assertEqual([exists(each) for each in (outer, inner, innermost, *kept)], [True, False, False, True, True])
        self.assertEqual(sent(), 3)

    def test_a_savepoint_that_is_rolled_back_by_hand_takes_its_sagas_with_it(self):
        with transaction.atomic():
            savepoint = transaction.savepoint()
            saga_id = start(PlaceOrder, Purchase("1"))
            transaction.savepoint_rollback(savepoint)
        self.assertFalse(exists(saga_id))

    def test_outside_a_transaction_a_saga_is_sent_at_once(self):
        self.assertTrue(exists(start(PlaceOrder, Purchase("1"))))
        self.assertEqual(sent(), 1)

    def test_the_same_key_in_one_transaction_is_one_saga(self):
        with transaction.atomic():
            ids = {start(PlaceOrder, Purchase("1"), idempotency_key="same-key") for _ in range(2)}
        self.assertEqual(ids, {start(PlaceOrder, Purchase("1"), idempotency_key="same-key")})
        self.assertEqual(sent(), 1)

    def test_a_transaction_of_another_database_is_not_joined(self):
        with self.assertRaises(Undone), transaction.atomic(using="other"):
            saga_id = start(PlaceOrder, Purchase("1"))
            raise Undone
        self.assertTrue(exists(saga_id))

    def test_sagas_may_be_kept_in_another_database_of_the_project(self):
        with override_settings(SAGAS={"DATABASE": "other"}):
            call_command("sagas", "migrate")
            with self.assertRaises(Undone), transaction.atomic(using="other"):
                undone = start(PlaceOrder, Purchase("1"))
                raise Undone
            with transaction.atomic(using="other"):
                done = start(PlaceOrder, Purchase("1"))
            self.assertEqual([exists(undone), exists(done)], [False, True])
        self.assertFalse(exists(done))

    def test_a_transaction_can_be_left_out(self):
        with self.assertRaises(Undone), transaction.atomic():
            with outside_transaction():
                saga_id = start(PlaceOrder, Purchase("1"))
            joined = start(PlaceOrder, Purchase("2"))
            raise Undone
        self.assertTrue(exists(saga_id))
        self.assertFalse(exists(joined))

    def test_a_transaction_that_is_committed_by_hand_is_joined(self):
        transaction.set_autocommit(False)
        try:
            undone = start(PlaceOrder, Purchase("1"))
            transaction.rollback()
            done = start(PlaceOrder, Purchase("2"))
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        self.assertEqual([exists(undone), exists(done)], [False, True])

    def test_a_broken_transaction_is_refused_as_for_every_query(self):
        with self.assertRaises(transaction.TransactionManagementError), transaction.atomic():
            with self.assertRaises(django.db.Error), connection.cursor() as cursor:
                cursor.execute("SELECT 1 / 0")
            transaction.set_rollback(True)
            start(PlaceOrder, Purchase("1"))

    def test_a_broker_that_fails_does_not_break_the_transaction(self):
        class Broken:
            def send(self, claims):
                raise OSError("the broker is away")

        api.configure(api.new_engine(dispatcher=Broken()))
        self.addCleanup(api.configure, None)
        with self.assertLogs("sagas"), transaction.atomic():
            saga_id = start(PlaceOrder, Purchase("1"))
        self.assertTrue(exists(saga_id))

    def test_a_view_that_fails_starts_nothing(self):
        with self.assertRaises(RuntimeError):
            self.client.get("/order/?number=1&fail")
        self.assertEqual([sent(), Order.objects.count()], [0, 0])
        self.assertTrue(exists(self.client.get("/order/?number=2").content.decode()))
        self.assertEqual(sent(), 1)

    async def test_an_async_view_starts_sagas(self):
        response = await self.async_client.get("/order/async/?number=1")
        self.assertTrue(await sync_to_async(exists)(response.content.decode()))
        self.assertEqual(sent(), 1)

    def test_a_coroutine_called_within_a_transaction_joins_it(self):
        async def place():
            return await start_async(PlaceOrder, Purchase("1"))

        with self.assertRaises(Undone), transaction.atomic():
            saga_id = async_to_sync(place)()
            raise Undone
        self.assertFalse(exists(saga_id))

    def test_run_runs_at_once_and_steps_leave_no_connection_behind(self):
        Order.objects.create(number="1")
        self.assertEqual(run(SettleBill, Bill("1")).status, SagaStatus.COMPLETED)
        self.assertEqual(Order.objects.get().state, "sent")
        # A session that was closed a moment ago may still be listed.
        deadline = time.monotonic() + 60
        while (sessions := self.sessions()) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(sessions, 1)

    def sessions(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            return cursor.fetchone()[0]

    def test_threads_of_the_engine_close_their_connections(self):
        for number in ("1", "2"):
            Order.objects.create(number=number)
        gc.collect()  # or what the tests before this one left would be found below
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.assertEqual(run(SettleBill, Bill("1")).status, SagaStatus.COMPLETED)
            report = async_to_sync(current_engine().run_async)(PlaceOrder, Purchase("2"))
            self.assertEqual(report.status, SagaStatus.COMPLETED)
            for thread in threading.enumerate():
                if thread.name in ("sagas-run", "sagas-step"):
                    thread.join(30)
            gc.collect()
        self.assertEqual([str(each.message) for each in told if each.category is ResourceWarning], [])

    def test_an_async_step_survives_the_end_of_its_connection(self):
        for number in ("1", "2"):
            Order.objects.create(number=number)
        with (
            mock.patch.dict(connection.settings_dict, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True),
            mock.patch("sagas.django.binding.in_tests", return_value=False),
        ):
            self.assertEqual(run(SettleBill, Bill("1")).status, SagaStatus.COMPLETED)
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                self.assertIn((True,), cursor.fetchall())
        self.assertEqual(run(SettleBill, Bill("2")).status, SagaStatus.COMPLETED)

    def test_a_signal_of_a_transaction_exists_and_wakes_its_saga_after_the_commit(self):
        saga_id = run(ApproveBill, Bill("1")).saga_id
        storage = current_engine().storage
        with self.assertRaises(Undone), transaction.atomic():
            signal(saga_id, "approval", False)
            cancel(saga_id, "rolled back")
            raise Undone
        self.assertEqual(storage.signals(saga_id), [])
        before = sent(RECOVER_QUEUE)
        with transaction.atomic():
            signal(saga_id, "approval", True, actor="ann")
            self.assertEqual([storage.signals(saga_id), sent(RECOVER_QUEUE) - before], [[], 0])
        self.assertEqual([len(storage.signals(saga_id)), sent(RECOVER_QUEUE) - before], [1, 1])
        self.assertEqual(recover_saga(saga_id).status, SagaStatus.COMPLETED)

    def test_a_coroutine_signals_in_the_transaction_that_calls_it(self):
        saga_id = run(ApproveBill, Bill("1")).saga_id

        async def approve():
            await signal_async(saga_id, "approval", True)

        with self.assertRaises(Undone), transaction.atomic():
            async_to_sync(approve)()
            raise Undone
        self.assertEqual(current_engine().storage.signals(saga_id), [])

    def test_eager_tasks_run_a_saga_when_its_transaction_commits(self):
        app.conf.task_always_eager = True
        try:
            with transaction.atomic():
                Order.objects.create(number="1")
                start(PlaceOrder, Purchase("1"))
                self.assertEqual(Order.objects.get().state, "new")
            self.assertEqual(Order.objects.get().state, "paid")
        finally:
            app.conf.task_always_eager = False


class Cases(TestCase):
    def test_a_saga_is_rolled_back_with_its_test(self):
        saga_id = start(PlaceOrder, Purchase("1"))
        self.assertFalse(exists(saga_id))

    async def test_a_saga_of_an_async_test_is_rolled_back_with_it(self):
        saga_id = await start_async(PlaceOrder, Purchase("1"))
        self.assertFalse(await asyncio.to_thread(exists, saga_id))

    def test_sagas_in_memory_run_when_the_transaction_would_commit(self):
        with sagas_in_memory() as engine:
            with self.captureOnCommitCallbacks(execute=True):
                saga_id = self.client.get("/order/?number=1").content.decode()
                self.assertEqual(Order.objects.get().state, "new")
            self.assertEqual(Order.objects.get().state, "paid")
            self.assertEqual(engine.storage.load(UUID(saga_id)).status, SagaStatus.COMPLETED)
        self.assertIsNot(current_engine(), engine)

    def test_sagas_in_memory_receive_signals_when_the_transaction_would_commit(self):
        with sagas_in_memory() as engine:
            saga_id = run(ApproveBill, Bill("1")).saga_id
            with self.captureOnCommitCallbacks(execute=True):
                signal(saga_id, "approval", True)
                self.assertEqual(engine.storage.load(saga_id).status, SagaStatus.RUNNING)
            self.assertEqual(engine.storage.load(saga_id).status, SagaStatus.COMPLETED)


class OneMore(TestCase):
    """So that two processes have something to do."""

    def test_each_process_starts_sagas_in_its_own_database(self):
        with outside_transaction():
            saga_id = start(PlaceOrder, Purchase("1"))
        name = connection.settings_dict["NAME"]
        self.assertIn(f"/{name}", api.settings().database_url)
        self.assertTrue(exists(saga_id))


def refusal(case, **given):
    with override_settings(SAGAS=given), case.assertRaises(ConfigurationError) as raised:
        read_settings({})
    return str(raised.exception)


class Settings(TestCase):
    def test_the_setting_goes_before_the_variable_and_the_variable_before_the_default(self):
        with override_settings(SAGAS={"LEASE_SECONDS": 7, "MODULES": ["shop.sagas"]}):
            read = read_settings({"SAGAS_LEASE_SECONDS": "8", "SAGAS_SCAN_LIMIT": "9"})
        self.assertEqual([read.lease_seconds, read.scan_limit, read.backoff_seconds], [7, 9, 5])
        self.assertEqual(read.modules, ("shop.sagas",))

    def test_the_database_is_the_one_that_the_tests_use_and_sagas_are_found(self):
        read = api.settings()
        self.assertIn("/test_", read.database_url)
        self.assertEqual(read.modules, ("shop.sagas", "billing.sagas"))
        self.assertEqual(
            {saga.name for saga in current_engine().registry}, {"approve-bill", "place-order", "settle-bill"}
        )

    def test_a_wrong_key_is_refused_with_the_nearest(self):
        self.assertIn("'lease_seconds', which is no setting: write 'LEASE_SECONDS'", refusal(self, lease_seconds=1))
        self.assertIn("write 'LEASE_SECONDS'", refusal(self, SAGAS_LEASE_SECONDS=1))
        self.assertIn("write 'SCAN_LIMIT'", refusal(self, SCAN_LIMITS=1))
        self.assertIn("the settings are", refusal(self, COLOUR="red"))
        self.assertIn("whose alias is in SAGAS['DATABASE']", refusal(self, DATABASE_URL="postgresql://"))

    def test_a_value_that_cannot_work_is_refused_by_its_key(self):
        self.assertIn("SAGAS['LEASE_SECONDS'] (it is '-1')", refusal(self, LEASE_SECONDS=-1))
        self.assertIn("MAX_BACKOFF", refusal(self, BACKOFF_SECONDS=500).upper())

    def test_a_database_that_cannot_hold_sagas_is_refused(self):
        self.assertIn("DATABASES['file'] has the engine django.db.backends.sqlite3", refusal(self, DATABASE="file"))
        self.assertIn("no alias in DATABASES (there are: default, file, other)", refusal(self, DATABASE="nosuch"))
        with self.assertRaisesMessage(ConfigurationError, "SAGAS_DATABASE_URL is set"):
            read_settings({"SAGAS_DATABASE_URL": "postgresql+psycopg://h/d"})

    def test_every_form_of_a_database_becomes_a_url(self):
        def written(**given):
            settings = {**connections["default"].settings_dict, "HOST": "", "PORT": "", "USER": "", "PASSWORD": ""}
            wrapper = DatabaseWrapper({**settings, "NAME": "shop", **given}, alias="shop")
            return url_of(wrapper).render_as_string(hide_password=False)

        begin = "postgresql+psycopg://"
        self.assertEqual(written(), f"{begin}/shop")
        self.assertEqual(written(HOST="db", PORT=5433, USER="u", PASSWORD="p@/:"), f"{begin}u:p%40%2F%3A@db:5433/shop")
        self.assertEqual(written(HOST="/run/pg", PORT="1"), f"{begin}/shop?host=%2Frun%2Fpg&port=1")
        self.assertEqual(written(HOST="a,b", PORT="1,2"), f"{begin}/shop?host=a%2Cb&port=1%2C2")
        self.assertEqual(written(HOST="::1"), f"{begin}[::1]/shop")
        self.assertEqual(written(NAME="", OPTIONS={"service": "shop"}), f"{begin}?service=shop")
        options = {
            "sslmode": "require",
            "pool": {"min_size": 2},
            "isolation_level": 3,
            "server_side_binding": True,
            "keepalives": True,
            "options": "-c search_path=shop",
            "assume_role": "a b",
        }
        url = written(OPTIONS=options, CONN_MAX_AGE=0)
        for part in ("sslmode=require", "keepalives=1", "options=-c+search_path%3Dshop+-c+role%3Da%5C+b"):
            self.assertIn(part, url)
        self.assertNotIn("pool", url)
        self.assertIn("prepare_threshold=none", written(OPTIONS={"prepare_threshold": None}))
        with self.assertRaisesMessage(ConfigurationError, "DATABASES['shop'] cannot be used: "):
            written(NAME="")


class Checks(TestCase):
    def test_the_project_has_no_error(self):
        # An unwatched connection to the broker is this project's choice.
        self.assertEqual({found.id for found in run_checks()}, {"sagas.W016"})

    def test_a_wrong_setting_is_an_error_of_the_check(self):
        with override_settings(SAGAS={"LEASE_SECOND": 1}):
            found = [each for each in run_checks() if each.id == "sagas.E001"]
        self.assertEqual(len(found), 1)
        self.assertIn("LEASE_SECONDS", found[0].msg)

    def test_missing_tables_are_a_warning_where_the_database_is_checked(self):
        def ids():
            return {found.id for found in run_checks(tags=[Tags.database], databases=["default", "other"])}

        self.assertEqual(ids(), set())
        with override_settings(SAGAS={"DATABASE": "other"}):
            self.assertEqual(ids(), {"sagas.W017"})


class Loading(SimpleTestCase):
    def test_django_is_set_up_once(self):
        from sagas.django.setup import set_up

        with mock.patch("django.setup", side_effect=AssertionError), mock.patch.dict(os.environ):
            set_up()


class CommandLine(TransactionTestCase):
    def sagas(self, *arguments):
        """Run `manage.py sagas` as a shell does; return its exit code, and what it printed."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err), self.assertRaises(SystemExit) as end:
            execute_from_command_line(["manage.py", *arguments])
        return end.exception.code, out.getvalue(), err.getvalue()

    def test_it_is_the_whole_command_with_its_exit_codes(self):
        code, helped, _ = self.sagas("sagas", "--help")
        self.assertEqual(code, 0)
        self.assertIn("Usage: manage.py sagas", helped)
        self.assertIn("doctor", helped)
        self.assertEqual(self.sagas("help", "sagas")[1], helped)
        self.assertIn("already at", self.sagas("sagas", "migrate")[1])
        self.assertEqual(self.sagas("sagas", "list", "--nosuch")[0], 2)
        code, _, err = self.sagas("sagas", "show", "01890000-0000-7000-8000-000000000000")
        self.assertEqual(code, 1)
        self.assertIn("error: ", err)
        with self.assertRaises(CommandError), redirect_stderr(StringIO()):
            call_command("sagas", "show", "01890000-0000-7000-8000-000000000000")

    def test_it_reads_the_database_of_the_settings(self):
        saga_id = start(PlaceOrder, Purchase("1"))
        _, shown, _ = self.sagas("sagas", "show", str(saga_id), "--json", "--settings=proj.settings")
        self.assertEqual(json.loads(shown)["name"], "place-order")
