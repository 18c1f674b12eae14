"""Transactional steps that write with the ORM."""

import asyncio
import threading
from dataclasses import dataclass, field
from unittest import mock

from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from shop.models import Order

from sagas import Call, MemorySagaStorage, Saga, SagaStatus, Step, current_engine, run, run_async
from sagas.definition import ONCE
from sagas.django import TransactionalStep
from sagas.django.testing import sagas_in_memory
from sagas.errors import DefinitionError
from sagas.storage.answers import Acquired
from sagas.storage.leases import LeaseRequest


@dataclass
class Delivery:
    number: str
    done: list[str] = field(default_factory=list)


#: What the step does after it has written.
then = mock.Mock(return_value=None)
committed = mock.Mock()


class Deliver(TransactionalStep[Delivery]):
    retry = ONCE

    def act(self, delivery: Delivery, call: Call) -> None:
        Order.objects.create(number=delivery.number, state="delivered")
        transaction.on_commit(lambda: committed(delivery.number))
        delivery.done.append(call.step_name)
        then(call)

    def compensate(self, delivery: Delivery, call: Call) -> None:
        Order.objects.create(number=delivery.number, state="returned")


class Slow(Deliver):
    name = "slow"
    timeout = 30


class Refuse(Step[Delivery]):
    def act(self, delivery: Delivery, call: Call) -> None:
        if delivery.number.startswith("no"):
            raise ValueError("refused")


class SendOrder(Saga[Delivery]):
    steps = [Deliver, Refuse]


class SendSlowly(Saga[Delivery]):
    steps = [Slow, Refuse]


def states():
    """Return the states of all orders, as another connection sees them."""
    found = []

    def look():
        found.extend(Order.objects.order_by("pk").values_list("state", flat=True))
        connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found


def run_as_coroutine(saga, context):
    return asyncio.run(run_async(saga, context))


class Steps(TransactionTestCase):
    def setUp(self):
        then.reset_mock(side_effect=True)
        committed.reset_mock()

    def each_way(self):
        for perform, saga in ((run, SendOrder), (run, SendSlowly), (run_as_coroutine, SendOrder)):
            with self.subTest(perform=perform.__name__, saga=saga.__name__):
                Order.objects.all().delete()
                self.setUp()
                yield lambda number="1", perform=perform, saga=saga: perform(saga, Delivery(number))

    def test_what_a_step_writes_is_committed_with_its_checkpoint(self):
        for perform in self.each_way():
            seen = []
            then.side_effect = lambda call, seen=seen: seen.append((states(), committed.called))
            report = perform()
            self.assertEqual((report.outcome, states(), seen), ("completed", ["delivered"], [([], False)]))
            committed.assert_called_once_with("1")

    def test_a_compensation_is_a_transaction_too(self):
        for perform in self.each_way():
            report = perform("no")
            self.assertEqual((report.outcome, states()), ("compensated", ["delivered", "returned"]))

    def test_a_step_that_fails_leaves_nothing(self):
        for perform in self.each_way():
            then.side_effect = ValueError("no")
            report = perform()
            self.assertEqual((report.outcome, states(), committed.called), ("compensated", [], False))

    def test_a_worker_that_was_replaced_leaves_nothing(self):
        for perform in self.each_way():
            then.side_effect = lambda call: self.take_over(call.saga_id)
            report = perform()
            self.assertEqual((report.outcome, states(), committed.called), ("lost", [], False))

    def test_a_lost_connection_has_the_step_performed_again(self):
        for perform in self.each_way():
            cuts = iter([self.cut])
            then.side_effect = lambda call, cuts=cuts: next(cuts, lambda: None)()
            report = perform()
            self.assertEqual((report.outcome, states()), ("completed", ["delivered"]))

    def test_savepoints_work_and_commits_are_refused(self):
        def in_a_savepoint(call):
            try:
                with transaction.atomic():
                    Order.objects.create(number="2")
                    raise KeyError
            except KeyError:
                Order.objects.create(number="3", state="kept")

        for perform in self.each_way():
            then.side_effect = in_a_savepoint
            report = perform()
            self.assertEqual((report.outcome, states()), ("completed", ["delivered", "kept"]))
        for end in (
            lambda _: transaction.commit(),
            lambda _: connection.close(),
            lambda _: connection.connection.commit(),
        ):
            Order.objects.all().delete()
            then.side_effect = end
            report = run(SendOrder, Delivery("1"))
            self.assertEqual((report.outcome, states()), ("compensated", []))

    def test_inside_a_transaction_a_step_is_refused(self):
        with transaction.atomic():
            report = run(SendOrder, Delivery("1"))
        self.assertEqual((report.status, states()), (SagaStatus.COMPENSATED, []))
        (failed,) = current_engine().storage.load(report.saga_id).log
        self.assertIn("durable", failed.message)

    def test_a_step_without_the_call_is_refused_when_the_class_is_made(self):
        with self.assertRaisesMessage(DefinitionError, "act must take (self, context, call)"):
            type("Wrong", (TransactionalStep,), {"act": lambda self, context, call, session: None})

    def take_over(self, saga_id):
        storage = current_engine().storage
        storage._execute("renew", {**self.fence(saga_id), "lease": -1.0})
        acquired = storage.acquire(saga_id, LeaseRequest(owner="another", seconds=30), max_recovery_attempts=3)
        self.assertIsInstance(acquired, Acquired)

    def fence(self, saga_id):
        record = current_engine().storage.load(saga_id)
        return {"id": saga_id, "version": record.version, "token": record.lease_token}

    def cut(self):
        pid = connection.connection.info.backend_pid
        with current_engine().storage.connections.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        Order.objects.count()


class InMemory(TestCase):
    def test_steps_run_in_the_transaction_of_a_test_case(self):
        then.reset_mock(side_effect=True)
        with sagas_in_memory() as engine:
            self.assertIsInstance(engine.storage, MemorySagaStorage)
            self.assertEqual(run(SendOrder, Delivery("1")).outcome, "completed")
            self.assertEqual(run(SendOrder, Delivery("no")).outcome, "compensated")
            then.side_effect = ValueError("no")
            self.assertEqual(run(SendOrder, Delivery("2")).outcome, "compensated")
        states = list(Order.objects.order_by("pk").values_list("number", "state"))
        self.assertEqual(states, [("1", "delivered"), ("no", "delivered"), ("no", "returned")])
