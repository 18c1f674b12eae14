"""The framework that an application is built on, as far as the engine has to know it."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

from sagas.storage.transactions import CallersTransaction

ResultT = TypeVar("ResultT")
ParamsT = ParamSpec("ParamsT")


class Framework:
    """What a framework decides about starting and running sagas; this class is an application without one."""

    def transaction(self) -> CallersTransaction | None:
        """Return the transaction that the caller is in, which sagas join that are started without `connection=`."""
        return None

    async def in_thread(
        self, function: Callable[ParamsT, ResultT], /, *args: ParamsT.args, **kwargs: ParamsT.kwargs
    ) -> ResultT:
        """Call a function that blocks from a coroutine, in the thread that this framework has for it."""
        return await asyncio.to_thread(function, *args, **kwargs)

    def around(self, action: Callable[[], Any]) -> Callable[[], Any]:
        """Return the action of a step with what must happen before and after it, in whatever thread it is called."""
        return action

    def thread_ends(self) -> None:
        """Let go of what belongs to this thread, which the engine started: its work for a saga is done."""


def set_up_framework() -> None:
    """Set up Django where DJANGO_SETTINGS_MODULE names its settings; modules of sagas may import models.

    Raises:
        ConfigurationError: Django cannot be set up.
    """
    if os.environ.get("DJANGO_SETTINGS_MODULE") and find_spec("django") is not None:
        # By its name: the engine does not import Django.
        importlib.import_module("sagas.django.setup").set_up()
