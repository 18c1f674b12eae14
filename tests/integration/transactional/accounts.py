"""Accounts in the sagas' own database. Their steps have no idempotency key, so that a repeated one counts twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sagas import Call, PostgresSagaStorage, PsycopgStep, RetryPolicy, Step, TransactionalStep
from sagas.definition import ONCE
from sagas.transactional import StepInTransaction

TABLES: Final = (
    "CREATE TABLE accounts (name text PRIMARY KEY, balance int NOT NULL DEFAULT 0 CHECK (balance >= 0))",
    """CREATE TABLE entries (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account text NOT NULL, amount int NOT NULL,
        reference text UNIQUE DEFERRABLE INITIALLY DEFERRED)""",
)


class Base(DeclarativeBase):
    """The user's models."""


class Account(Base):
    """A row of `accounts`."""

    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int]


class Entry(Base):
    """A row of `entries`."""

    __tablename__ = "entries"
    id: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str]
    amount: Mapped[int]
    reference: Mapped[str | None]


@dataclass
class Transfer:
    """The context."""

    amount: int = 10
    done: list[str] = field(default_factory=list)
    note: Any = None


class Accounts:
    """The user's tables as they are committed."""

    def __init__(self, engine: sa.Engine, url: str) -> None:
        self.engine = engine
        self.url = url
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM entries")
            connection.exec_driver_sql("DELETE FROM accounts")
            connection.exec_driver_sql("INSERT INTO accounts VALUES ('ann', 0), ('bob', 0)")

    def balance(self, name: str = "ann") -> int:
        with self.engine.connect() as connection:
            found = connection.execute(sa.text("SELECT balance FROM accounts WHERE name = :name"), {"name": name})
            return int(found.scalar_one())

    def open_steps(self) -> list[str]:
        """Return the names of the transactions of steps that are open."""
        with self.engine.connect() as connection:
            return list(
                connection.exec_driver_sql(
                    "SELECT application_name FROM pg_stat_activity "
                    "WHERE application_name LIKE 'saga %%' AND datname = current_database()"
                ).scalars()
            )

    @property
    def entries(self) -> list[int]:
        with self.engine.connect() as connection:
            return list(connection.exec_driver_sql("SELECT amount FROM entries ORDER BY id").scalars())


#: Called in `act` or `compensate` after the step has written: with the session, the context and the call.
Then = Callable[[Any, Transfer, Call], Any]


def pay(session: Any, amount: int, reference: str | None = None) -> None:
    """Add to ann's balance, and write an entry; with a Session the entry is only flushed at the end."""
    if isinstance(session, Session):
        account = session.get(Account, "ann", with_for_update=True)
        assert account is not None
        account.balance += amount
        session.add(Entry(account="ann", amount=amount, reference=reference))
        return
    assert isinstance(session, psycopg.Connection)
    session.execute("UPDATE accounts SET balance = balance + %s WHERE name = 'ann'", (amount,))
    session.execute("INSERT INTO entries (account, amount, reference) VALUES ('ann', %s, %s)", (amount, reference))


KINDS: Final[dict[str, type[StepInTransaction[Any]]]] = {"sqlalchemy": TransactionalStep, "psycopg": PsycopgStep}


def paying(
    kind: type[StepInTransaction[Any]],
    then: Then | None = None,
    undone: Then | None = None,
    *,
    name: str = "pay",
    before: Then | None = None,
    **attributes: Any,
) -> type[Step[Any]]:
    """Return a transactional step that pays, and then does this."""

    def act(self: Any, context: Transfer, call: Call, session: Any) -> Any:
        if before is not None:
            before(session, context, call)
        pay(session, context.amount)
        context.done.append(call.step_name)
        return None if then is None else then(session, context, call)

    def compensate(self: Any, context: Transfer, call: Call, session: Any) -> Any:
        pay(session, -context.amount)
        return None if undone is None else undone(session, context, call)

    members: dict[str, Any] = {"name": name, "act": act, "compensate": compensate, "retry": ONCE}
    members["compensate_retry"] = RetryPolicy(max_attempts=2, first_delay=0)
    return type(name.title(), (kind,), {**members, **attributes})


def storage_of(accounts: Accounts) -> PostgresSagaStorage:
    """Return a storage on the accounts' database."""
    return PostgresSagaStorage(accounts.url)
