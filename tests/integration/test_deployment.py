"""docker-compose.yml and Dockerfile agree with the code, and leave no door open."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tornado.options
import yaml

from sagas import Settings
from sagas.settings import PREFIX
from sagas.testing.processes import CeleryProcess, wait_until
from tests.integration.docs.commands import check_command

REPOSITORY = Path(__file__).parents[2]
COMPOSE_TEXT = (REPOSITORY / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
EXAMPLE = (REPOSITORY / ".env.example").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}
#: What the images that are not ours read.
FOREIGN = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "REDISCLI_AUTH"}
#: A repository, and a tag of an exact version: two numbers at least, as 18.1 or 8.2.3.
PINNED = re.compile(r"[a-z][a-z0-9/._-]*:\d+\.\d+(\.\d+)?(-[a-z0-9.]+)*")
ONE_SHOT = {name for name, service in SERVICES.items() if service.get("restart") == "no"}
LONG_RUNNING = sorted(set(SERVICES) - ONE_SHOT)
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)


def substitute(text: str, variables: dict[str, str]) -> str:
    """Replace `${NAME:?...}` and `${NAME:-...}` as compose does."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match[1], match[2], match[3]
        if variables.get(name):
            return variables[name]
        assert kind == "-", f"{name} is not set: {rest}"
        return rest

    return re.sub(r"\$\{(\w+):([?-])([^}]*)\}", value, text).replace("$$", "$")


def instructions() -> Iterator[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments."""
    lines = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            instruction, _, arguments = line.partition(" ")
            yield instruction, arguments.strip()


# -- docker-compose.yml -----------------------------------------------------------------------------------------------


def test_the_services_are_those_that_a_deployment_needs() -> None:
    assert sorted(SERVICES) == ["beat-1", "beat-2", "console", "flower", "migrate", "postgres", "redis", "worker"]
    assert SERVICES["worker"]["deploy"]["replicas"] >= 2
    assert {"migrate"} == ONE_SHOT


def test_every_image_is_pinned() -> None:
    for name in SERVICES:
        image = substitute(SERVICES[name]["image"], {})
        assert PINNED.fullmatch(image), image
        assert "latest" not in image


def test_our_image_bears_the_projects_version() -> None:
    for name in OURS:
        assert substitute(SERVICES[name]["image"], {}) == f"{PROJECT['name']}:{PROJECT['version']}"


def test_the_readme_names_our_image_as_it_is() -> None:
    assert f"`FROM {PROJECT['name']}:{PROJECT['version']}`" in (REPOSITORY / "docs/deployment.md").read_text()


def test_every_variable_is_one_that_is_read() -> None:
    for name, service in SERVICES.items():
        for variable in service.get("environment", {}):
            if variable.startswith("FLOWER_"):
                __import__("flower.options")
                assert variable.removeprefix("FLOWER_").lower() in tornado.options.options
            else:
                assert variable in (SETTINGS if name in OURS else FOREIGN)


def test_workers_get_every_setting_but_those_of_the_console() -> None:
    of_the_console = {name for name in SETTINGS if name.startswith("SAGAS_CONSOLE_")}
    assert set(SERVICES["worker"]["environment"]) == SETTINGS - of_the_console
    assert set(SERVICES["console"]["environment"]) > of_the_console


def test_the_workers_settings_are_accepted() -> None:
    variables = dict.fromkeys(_required(), "secret") | {"SAGAS_MODULES": "shop.sagas,shop.more"}
    given = SERVICES["worker"]["environment"]
    environment = {key: substitute(value, variables) for key, value in given.items() if value is not None}

    settings = Settings.from_environment(environment)

    assert settings.database_url == "postgresql+psycopg://sagas:secret@postgres:5432/sagas"
    assert settings.broker_url == "redis://:secret@redis:6379/0"
    assert settings.modules == ("shop.sagas", "shop.more")


def test_only_who_needs_the_database_knows_its_password() -> None:
    knowing = {name for name, service in SERVICES.items() if "POSTGRES_PASSWORD" in str(service)}
    assert knowing == {"postgres", "migrate", "worker", "console"}


def test_no_password_has_a_default_or_is_written_down() -> None:
    for reference in re.findall(r"\$\{\w*PASSWORD\w*(.*?)\}", COMPOSE_TEXT):
        assert reference.startswith(":?"), reference
    assert all(value == "" for name, value in _example().items() if "PASSWORD" in name)
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${")
    assert not re.search(r"(?i)password|secret|token", DOCKERFILE)


def test_the_example_names_every_variable_that_must_be_set() -> None:
    assert set(_example()) >= _required()
    for variable in re.findall(r"^(?:# )?(\w+)=", EXAMPLE, re.MULTILINE):
        assert variable in SETTINGS or f"${{{variable}:" in COMPOSE_TEXT, variable


def test_flower_asks_for_a_password() -> None:
    user, _, password = SERVICES["flower"]["environment"]["FLOWER_BASIC_AUTH"].partition(":")
    assert user
    assert password.startswith("${FLOWER_PASSWORD:?")


def test_the_console_asks_for_a_password() -> None:
    assert SERVICES["console"]["environment"]["SAGAS_CONSOLE_PASSWORD"].startswith("${CONSOLE_PASSWORD:?")


def test_nothing_is_published_beyond_this_host() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert sorted(published) == ["127.0.0.1:5555:5555", "127.0.0.1:5580:5580"]
    assert not any(service.get("network_mode") for service in SERVICES.values())


def test_every_command_exists() -> None:
    for name in OURS:
        check_command(SERVICES[name]["command"])


def test_every_long_running_service_is_restarted_and_checked() -> None:
    for name in LONG_RUNNING:
        service = SERVICES[name]
        assert service["restart"] in ("always", "unless-stopped")
        check = service["healthcheck"]
        assert {"test", "interval", "timeout", "retries", "start_period"} == set(check)
        kind, *command = check["test"]
        if kind == "CMD-SHELL":
            command = shlex.split(command[0].partition("|")[0])
        assert command[0] in ("celery", "python", "pg_isready", "redis-cli")
        if command[0] == "celery":
            check_command(command)


@pytest.mark.parametrize(("name", "node"), [("worker", "celery"), ("beat-1", "celerybeat"), ("beat-2", "celerybeat")])
def test_a_health_check_asks_the_very_container(name: str, node: str) -> None:
    assert f"-d {node}@$$HOSTNAME " in SERVICES[name]["healthcheck"]["test"][1]


def test_every_dependency_is_waited_for() -> None:
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            condition = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert how == {"condition": condition}


def test_workers_start_after_the_migration() -> None:
    assert {"migrate", "redis"} == set(SERVICES["worker"]["depends_on"])
    assert {"postgres"} == set(SERVICES["migrate"]["depends_on"])


def test_workers_have_time_for_a_step_when_they_stop() -> None:
    assert SERVICES["worker"]["stop_grace_period"] == "2m"


def test_our_services_have_as_few_rights_as_possible() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(volume.endswith(":ro") for volume in service["volumes"])
        assert not service.get("privileged")


def test_every_volume_is_declared() -> None:
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert {volume for volume in used if not volume.startswith(".")} == set(COMPOSE["volumes"])


def test_beats_health_check_is_answered_by_a_beat_that_ticks(tmp_path: Path, broker_url: str) -> None:
    environment = {
        "SAGAS_BROKER_URL": broker_url,
        "SAGAS_SCAN_INTERVAL_SECONDS": "1",
        "HOSTNAME": socket.gethostname(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    check = substitute(SERVICES["beat-1"]["healthcheck"]["test"][1], {})

    def healthy() -> bool:
        done = subprocess.run(
            ["sh", "-c", check], env={**os.environ, **environment}, cwd=REPOSITORY, capture_output=True, check=False
        )
        return done.returncode == 0

    arguments = SERVICES["beat-1"]["command"][3:]
    with CeleryProcess(
        arguments, application="tasks", environment=environment, log=tmp_path / "beat.log", directory=REPOSITORY
    ) as beat:
        beat.wait_for_log("Sending due task sagas.scan")
        wait_until(healthy, what="a healthy beat")
        beat.kill()


def _required() -> set[str]:
    return set(re.findall(r"\$\{(\w+):\?", COMPOSE_TEXT))


def _example() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", EXAMPLE, re.MULTILINE))


# -- Dockerfile -------------------------------------------------------------------------------------------------------


def test_every_base_image_is_pinned_and_the_same() -> None:
    bases = {arguments.split()[0] for instruction, arguments in instructions() if instruction == "FROM"}
    assert len(bases) == 1
    assert all(PINNED.fullmatch(base) and "-slim" in base for base in bases)


def test_the_image_runs_as_a_user_of_a_fixed_id_that_is_not_root() -> None:
    users = [arguments for instruction, arguments in _final_stage() if instruction == "USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])
    uid, _, gid = users[-1].partition(":")
    assert f"--uid {uid}" in DOCKERFILE
    assert f"--gid {gid}" in DOCKERFILE


def test_the_final_stage_installs_nothing() -> None:
    for instruction, arguments in _final_stage():
        assert not (instruction == "RUN" and re.search(r"\b(pip|apt|apt-get|gcc)\b", arguments)), arguments


def test_everything_copied_exists_and_reaches_the_build() -> None:
    patterns = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")]
    assert patterns[0] == "*", "only what is named reaches the build"
    for instruction, arguments in instructions():
        if instruction == "COPY" and "--from" not in arguments:
            for source in arguments.split()[:-1]:
                assert (REPOSITORY / source).exists(), source
                assert f"!{source}" in patterns
                assert not any(fnmatch.fnmatch(source, p) for p in patterns[1:] if not p.startswith("!")), source


def test_what_the_project_declares_for_its_wheel_is_copied() -> None:
    copied = " ".join(arguments for instruction, arguments in instructions() if instruction == "COPY").split()
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], "README.md"} <= set(copied)


def test_the_image_is_built_within_the_constraints() -> None:
    environment = " ".join(arguments for instruction, arguments in instructions() if instruction == "ENV")
    assert "PIP_CONSTRAINT=/source/constraints.txt" in environment
    installed = re.search(r"install .*\[([\w,]+)\]", DOCKERFILE)
    assert installed is not None
    assert set(installed[1].split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_image_stops_in_order_and_starts_a_worker() -> None:
    final = dict(_final_stage())
    assert final["STOPSIGNAL"] == "SIGTERM"
    check_command(yaml.safe_load(final["CMD"]))


def test_the_modules_that_are_mounted_can_be_imported() -> None:
    for name in OURS:
        environment = " ".join(arguments for instruction, arguments in _final_stage() if instruction == "ENV")
        path = re.search(r"PYTHONPATH=(\S+)", environment)
        assert path is not None
        targets = [volume.split(":")[1] for volume in SERVICES[name]["volumes"]]
        assert set(targets) <= set(path[1].split(":"))


def _final_stage() -> list[tuple[str, str]]:
    every = list(instructions())
    last = max(index for index, (instruction, _) in enumerate(every) if instruction == "FROM")
    return every[last:]
