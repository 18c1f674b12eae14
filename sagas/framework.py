"""What the engine needs to know of the framework that an application is built on."""

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
    """How a framework changes the starting and running of sagas. This class is for applications without a framework."""

    def transaction(self) -> CallersTransaction | None:
        """Return the caller's transaction, if any. Sagas that are started without `connection=` join it."""
        return None

    async def in_thread(
        self, function: Callable[ParamsT, ResultT], /, *args: ParamsT.args, **kwargs: ParamsT.kwargs
    ) -> ResultT:
        """Call a blocking function from a coroutine, in the thread that this framework provides for it."""
        return await asyncio.to_thread(function, *args, **kwargs)

    def around(self, action: Callable[[], Any]) -> Callable[[], Any]:
        """Return a step's action, wrapped in what this framework does before and after it. Any thread may call it."""
        return action

    def thread_ends(self) -> None:
        """Release resources of this thread. The engine started the thread, and its work for a saga is done."""


def set_up_framework() -> None:
    """Set up Django if DJANGO_SETTINGS_MODULE is set, so that saga modules can import models.

    Raises:
        ConfigurationError: Django cannot be set up.
    """
    if os.environ.get("DJANGO_SETTINGS_MODULE") and find_spec("django") is not None:
        # Import by name: the engine does not import Django.
        importlib.import_module("sagas.django.setup").set_up()
