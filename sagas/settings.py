"""Every setting of the engine with its default, unit and reason. Settings are read from the environment once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sagas.errors import ConfigurationError
from sagas.text import printable
from sagas.urls import check_broker_url, check_url

PREFIX: Final = "SAGAS_"
#: A thread uses a connection for some milliseconds, so 20 connections serve more threads than a process can run.
DEFAULT_POOL_SIZE: Final = 20
#: A shorter secret could be guessed from one link.
SHORTEST_SECRET: Final = 32


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _long_enough(secrets: tuple[str, ...]) -> tuple[str, ...]:
    if any(len(secret) < SHORTEST_SECRET for secret in secrets):
        raise ValueError(
            f"a secret has fewer than {SHORTEST_SECRET} characters: make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
        )
    return secrets


def _public_url(url: str) -> str:
    parts = urlsplit(url)
    plain = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"[\s?#@\x00-\x1f]", url)
    if not plain or not url.isascii():
        raise ValueError("it is no URL to which a path can be added: write it as https://shop.example/callbacks")
    return url


class Settings(BaseModel):
    """Settings of an engine. The variable `SAGAS_` + a field's name in capitals overrides the field.

    Raises:
        ConfigurationError: from `from_environment`, a sentence for each value that cannot work.
    """

    # Hide inputs: pydantic's own errors would show URLs with their passwords.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: str = Field(
        default="postgresql+psycopg://postgres@127.0.0.1:5432/postgres",
        description="where the sagas are: PostgreSQL, the only truth",
        repr=False,
    )
    database_pool_size: int = Field(
        default=DEFAULT_POOL_SIZE,
        gt=0,
        le=10_000,
        description="connections that a process uses at once at most; it opens them as it needs them, so a prefork "
        "child has one or two",
    )
    broker_url: Annotated[str, AfterValidator(check_broker_url)] = Field(
        default="redis://127.0.0.1:6379/0",
        description="Celery's broker, Redis or RabbitMQ; it may lose everything at any time",
        repr=False,
    )
    result_backend: Annotated[Annotated[str, AfterValidator(check_url)] | None, BeforeValidator(_none_if_empty)] = (
        Field(
            default=None,
            description="where results of tasks invoked by hand are kept for a day; default: the broker if it is Redis",
            repr=False,
        )
    )
    celery_app: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        default=None,
        description="your Celery application with sagas installed, as 'shop.celery:app'; default: the sagas' own",
    )
    modules: Annotated[tuple[str, ...], BeforeValidator(_split)] = Field(
        default=(), description="modules that define your sagas, comma-separated; workers import them"
    )
    resolver: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        default=None,
        description="function that builds a step from its class, as 'shop.container:resolve'; default: call it",
    )
    lease_seconds: float = Field(
        default=30.0,
        gt=0,
        le=86_400,
        description="how long a worker that fell silent keeps its saga; renewed every third of it while it lives",
    )
    scan_interval_seconds: float = Field(
        default=5.0,
        gt=0,
        le=86_400,
        description="how often beat fires the scan that finds due sagas",
    )
    scan_limit: int = Field(
        default=1000,
        gt=0,
        le=1_000_000,
        description="sagas that scans keep waiting in the queue at most, so it stays short",
    )
    max_recovery_attempts: int = Field(
        default=5, gt=0, le=1_000_000, description="failed attempts without progress after which a saga is dead"
    )
    backoff_seconds: float = Field(
        default=5.0,
        gt=0,
        le=86_400,
        description="wait after the first failed attempt; doubled after each further one",
    )
    max_backoff_seconds: float = Field(default=300.0, gt=0, le=31_622_400, description="the longest such wait")
    retention_days: Annotated[float | None, BeforeValidator(_none_if_empty)] = Field(
        default=None,
        gt=0,
        le=36_500,
        description="finished sagas older than this are pruned every night; default: kept",
    )
    metrics_port: Annotated[int | None, BeforeValidator(_none_if_empty)] = Field(
        default=None,
        gt=0,
        le=65_535,
        description="port on 127.0.0.1 where a worker serves Prometheus metrics, each its own; default: none",
    )
    console_password: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        default=None, repr=False, description="password of those who may act in `sagas console`; default: none"
    )
    console_viewer_password: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        default=None, repr=False, description="password of those who may only look in `sagas console`; default: none"
    )
    console_secret: Annotated[str | None, BeforeValidator(_none_if_empty)] = Field(
        default=None,
        repr=False,
        description="signs the sessions of `sagas console`; default: random, so that a restart ends them",
    )

    callback_secret: Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_long_enough)] = Field(
        default=(),
        description="signs callback links: 32 random characters or more; to change it, put the new one in front of the "
        "old one, separated by a comma",
        repr=False,
    )
    callback_url: Annotated[Annotated[str, AfterValidator(_public_url)] | None, BeforeValidator(_none_if_empty)] = (
        Field(
            default=None,
            description="public URL where `sagas.callbacks.app` is mounted, as https://shop.example/callbacks",
        )
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.backoff_seconds > self.max_backoff_seconds:
            raise ValueError("backoff_seconds must not exceed max_backoff_seconds")
        return self

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] = os.environ,
        *,
        given: Mapping[str, Any] = MappingProxyType({}),
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Return the settings that the environment's `SAGAS_...` variables give.

        Args:
            environment: the variables.
            given: values by field; they override the variables.
            names: the names of fields in messages.

        Raises:
            ConfigurationError: one or more values cannot work. The message has a sentence for each, with the cure.
        """
        variables = {name: PREFIX + name.upper() for name in cls.model_fields}
        read = {name: environment[variable] for name, variable in variables.items() if variable in environment}
        values = {**read, **given}
        try:
            return cls(**values)
        except ValidationError as error:
            sentences = []
            for problem in error.errors(include_url=False, include_context=False):
                name = str(problem["loc"][0]) if problem["loc"] else None
                variable = names.get(name) or variables[name] if name else "SAGAS settings"
                # Show only numbers and names: a URL may hold a password.
                shown = name is not None and cls.model_fields[name].repr
                got = f" (it is {printable(str(values[name]))!r:.200})" if name and shown else ""
                sentences.append(f"{variable}{got}: {problem['msg'].removeprefix('Value error, ')}.")
            raise ConfigurationError(" ".join(sentences)) from None
