"""Who may come in, what a form must bring, and what browsers are told."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount

from sagas import MemorySagaStorage, PostgresSagaStorage, SagaEngine, Settings
from sagas.console import LoopbackOnly, Passwords, Person, Role, console
from sagas.console.server import access_of
from sagas.console.sessions import COOKIE
from sagas.console.throttle import FREE_FAILURES, LONGEST_WAIT, Throttle
from sagas.errors import ConfigurationError
from tests.integration.console.conftest import OPERATOR, VIEWER, Browser, Started, fields, served

PAGES = (
    "/",
    "/sagas",
    "/dead",
    "/schedules",
    "/workers",
    "/pauses",
    "/bulk?name=x&action=retry",
    "/find?q=1",
    "/pauses/pause",
)


@pytest.mark.parametrize("path", [*PAGES, "/sagas/01a219f8-09bc-73fd-a89d-172133a14a08"])
def test_nobody_sees_a_page_without_logging_in(url: str, path: str) -> None:
    answer = httpx.get(url + path)

    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")
    assert answer.text == ""


def test_a_person_comes_back_to_the_page_that_was_asked_for(url: str, started: Started) -> None:
    saga_id = started()
    browser = Browser(url)
    login = str(browser.get(f"/sagas/{saga_id}").url).removeprefix(url)

    answer = browser.send(login, name="ann", password=OPERATOR)

    assert str(answer.url) == f"{url}/sagas/{saga_id}"


@pytest.mark.parametrize("target", ["//evil.test", "https://evil.test", "/\\evil.test", "evil", "/a\nb"])
def test_a_login_leads_to_no_other_site(url: str, target: str) -> None:
    browser = Browser(url)
    page = browser.get("/login", params={"next": target})
    browser.client.follow_redirects = False
    data = {**fields(page.text), "name": "ann", "password": OPERATOR}

    answer = browser.client.post("/login", params={"next": target}, data=data)

    assert answer.headers["location"] == "/"


def test_viewers_look_and_do_not_act(vic: Browser, ann: Browser, started: Started) -> None:
    saga_id = started()
    token = vic.token("/")
    for path in ("retry", "compensate", "skip", "resolve", "cancel", "signal"):
        assert vic.get(f"/sagas/{saga_id}/{path}").status_code == 403
        answer = vic.client.post(f"/sagas/{saga_id}/{path}", data={"token": token, "reason": "why"})
        assert answer.status_code == 403
    for path in ("/pauses/pause", "/pauses/resume", "/bulk?name=place-order"):
        answer = vic.client.post(path, data={"token": token, "name": "place-order", "reason": "x", "action": "retry"})
        assert answer.status_code == 403
    assert "It waits for the signal" in ann.get(f"/sagas/{saga_id}").text
    assert "No name is paused" in ann.get("/pauses").text


@pytest.mark.parametrize(
    ("token", "headers"),
    [
        ("", {}),
        ("0" * 64, {}),
        ("é", {}),
        (None, {"Origin": "https://evil.test"}),
        (None, {"Origin": "null"}),
        (None, {"Sec-Fetch-Site": "cross-site"}),
        (None, {"Sec-Fetch-Site": "same-site"}),
    ],
)
def test_a_form_of_another_site_does_nothing(
    ann: Browser, started: Started, token: str | None, headers: dict[str, str], emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = started()
    data = {**fields(ann.get(f"/sagas/{saga_id}/resolve").text), "as": "COMPLETED", "reason": "csrf"}
    if token is not None:
        data["token"] = token

    answer = ann.client.post(f"/sagas/{saga_id}/resolve", data=data, headers=headers)

    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text
    assert not emptied_storage.load(saga_id).status.finished


def test_the_token_of_one_session_is_worth_nothing_in_another(ann: Browser, bob: Browser, started: Started) -> None:
    saga_id = started()
    data = {**fields(ann.get(f"/sagas/{saga_id}/resolve").text), "as": "COMPLETED", "reason": "csrf"}

    assert bob.client.post(f"/sagas/{saga_id}/resolve", data=data).status_code == 403


def test_a_form_must_be_a_form_of_a_bearable_size(ann: Browser) -> None:
    token = ann.token("/")
    as_json = ann.client.post("/pauses/pause", json={"token": token, "name": "x", "reason": "y"})
    large = ann.client.post("/pauses/pause", data={"token": token, "reason": "y" * 300_000})
    many = ann.client.post("/pauses/pause", data={"token": token, **{f"f{n}": "" for n in range(300)}})
    broken = ann.client.post(
        "/pauses/pause", content=b"token=%ff", headers={"content-type": "application/x-www-form-urlencoded"}
    )

    assert [answer.status_code for answer in (as_json, large, many, broken)] == [415, 413, 400, 400]


def test_a_session_cannot_be_forged_and_ends_with_the_log_out(url: str, ann: Browser) -> None:
    cookie = ann.client.cookies[COOKIE]
    forged = base64.urlsafe_b64encode(json.dumps({"nonce": "x", "name": "eve", "role": "operator"}).encode()).decode()
    for value in (forged, f"{forged}.{cookie.partition('.')[2]}", cookie[:-2], "", "."):
        assert httpx.get(url, cookies={COOKIE: value}).status_code == 303

    assert "Log in" in ann.client.post("/logout", data={"token": ann.token("/")}).text
    assert "Log in" in ann.get("/").text


def test_the_cookie_is_kept_from_scripts_and_other_sites(url: str) -> None:
    cookie = httpx.get(f"{url}/login").headers["set-cookie"].lower()

    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie


def test_a_session_is_not_prolonged_by_its_use(ann: Browser) -> None:
    assert "set-cookie" not in ann.get("/").headers


def test_logging_in_begins_a_new_session(url: str) -> None:
    browser = Browser(url)
    planted = browser.token("/login")
    browser.log_in("ann", OPERATOR)

    assert browser.token("/pauses/pause") != planted


@pytest.mark.parametrize("path", [*PAGES, "/login", "/nowhere", "/static/console.js", "/sagas/nonsense"])
def test_every_answer_has_the_headers_of_security(ann: Browser, path: str) -> None:
    headers = ann.get(path).headers
    policy = headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers


def test_pages_load_nothing_from_elsewhere_and_have_nothing_inline(ann: Browser, started: Started) -> None:
    for path in (*PAGES, f"/sagas/{started()}"):
        page = ann.get(path).text
        loaded = re.findall(r'(?:src|href|action)="([^"]*)"', page)
        assert all(link.startswith(("/", "#")) for link in loaded), loaded
        assert not re.search(r"<style|<script(?! src)|\bstyle=|\bon\w+=", page)


def test_guessing_passwords_is_slowed(url: str) -> None:
    browser = Browser(url)
    for _ in range(FREE_FAILURES):
        assert browser.log_in("eve", "wrong-wrong-wrong").status_code == 401

    refused = browser.log_in("eve", OPERATOR)

    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "try it again in" in refused.text


def test_each_further_try_has_to_wait_twice_as_long() -> None:
    now = [1000.0]
    throttle = Throttle(lambda: now[0])
    waits = []
    for _ in range(20):
        assert throttle.wait("10.0.0.1") == 0
        throttle.failed("10.0.0.1")
        waits.append(throttle.wait("10.0.0.1"))
        assert throttle.wait("10.0.0.2") == 0
        now[0] += waits[-1]

    assert waits[: FREE_FAILURES - 1] == [0.0] * (FREE_FAILURES - 1)
    assert waits[FREE_FAILURES - 1 : FREE_FAILURES + 3] == [1.0, 2.0, 4.0, 8.0]
    assert max(waits) == LONGEST_WAIT
    throttle.failed("2001:db8::1")
    for _ in range(FREE_FAILURES):
        throttle.failed("2001:db8::2")
    assert throttle.wait("2001:db8::3") > 0  # of the same network
    throttle.succeeded("2001:db8::1")
    assert throttle.wait("2001:db8::3") == 0


def test_guesses_from_many_addresses_are_slowed_together() -> None:
    throttle = Throttle(lambda: 1000.0)
    for n in range(60):
        throttle.failed(f"10.0.{n}.1")

    assert throttle.wait("10.9.9.9") > 0


def test_passwords_give_their_role_and_nothing_else_does() -> None:
    both = Passwords(operator=OPERATOR, viewer=VIEWER)
    assert both.role_of(OPERATOR) is Role.OPERATOR
    assert both.role_of(VIEWER) is Role.VIEWER
    assert both.role_of("") is None
    assert Passwords(viewer=VIEWER).role_of("None") is None
    assert both.role_of("\ud800") is None
    assert OPERATOR not in repr(both)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "has no password"),
        ({"operator": "short"}, "fewer than 12"),
        ({"operator": OPERATOR, "viewer": OPERATOR}, "same password"),
        ({"operator": OPERATOR, "secret": "short"}, "fewer than 32"),
    ],
)
def test_passwords_that_protect_nothing_are_refused(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Passwords(**options)


def test_the_same_secret_and_passwords_sign_alike_and_others_do_not() -> None:
    secret = "s" * 32
    key = Passwords(operator=OPERATOR, secret=secret).signing_key()
    assert Passwords(operator=OPERATOR, secret=secret).signing_key() == key
    assert Passwords(operator=OPERATOR + "x", secret=secret).signing_key() != key
    assert Passwords(operator=OPERATOR).signing_key() != Passwords(operator=OPERATOR).signing_key()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "console.example.com", ""])
def test_a_console_that_others_reach_needs_a_password(host: str) -> None:
    with pytest.raises(ConfigurationError, match="SAGAS_CONSOLE_PASSWORD"):
        access_of(Settings(), host, person="ann")
    assert isinstance(access_of(Settings(console_password=OPERATOR), host, person="ann"), Passwords)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_console_on_loopback_needs_none(host: str) -> None:
    assert isinstance(access_of(Settings(), host, person="ann"), LoopbackOnly)


@pytest.fixture
def open_url(emptied_storage: PostgresSagaStorage) -> Iterator[str]:
    """Where a console without a password is served."""
    with served(console(SagaEngine(emptied_storage), access=LoopbackOnly(Person("dev", Role.OPERATOR)))) as url:
        yield url


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.test"},
        {"Host": "127.0.0.1.evil.test:80"},
        {"X-Forwarded-For": "10.1.2.3"},
        {"X-Forwarded-Host": "console.example.com"},
        {"Forwarded": "for=10.1.2.3"},
        {"Via": "1.1 proxy"},
    ],
)
def test_an_open_console_answers_only_its_own_machine(open_url: str, headers: dict[str, str]) -> None:
    assert httpx.get(open_url).status_code == 200
    assert httpx.get(open_url, headers=headers).status_code == 403


def test_an_application_brings_its_own_login_and_mount_point(
    emptied_storage: PostgresSagaStorage, engine: SagaEngine, started: Started
) -> None:
    saga_id = started()

    async def login(request: Request) -> Person | Response | None:
        user = request.headers.get("x-user")
        if user == "new":
            return RedirectResponse("/accounts/login")
        return None if user is None else Person(user, Role.OPERATOR if user == "ann" else Role.VIEWER)

    with served(Starlette(routes=[Mount("/ops/sagas", console(engine, access=login))])) as url:
        assert httpx.get(f"{url}/ops/sagas/").status_code == 401
        assert httpx.get(f"{url}/ops/sagas/", headers={"X-User": "new"}).headers["location"] == "/accounts/login"
        assert httpx.get(f"{url}/ops/sagas/login").status_code == 404
        ann = Browser(f"{url}/ops/sagas")
        ann.client.headers["X-User"] = "ann"
        assert "Path=/ops/sagas" in ann.get("/").headers["set-cookie"]
        page = ann.get(f"/sagas/{saga_id}").text
        assert f'href="/ops/sagas/sagas/{saga_id}/cancel"' in page
        answer = ann.send(f"/sagas/{saga_id}/cancel", reason="by the application")
        assert str(answer.url).startswith(f"{url}/ops/sagas/sagas/{saga_id}")
        ann.client.headers["X-User"] = "vic"
        assert ann.get(f"/sagas/{saga_id}/cancel").status_code == 403
    assert [signal.actor for signal in emptied_storage.signals(saga_id)] == ["ann"]


@pytest.mark.parametrize("access", [None, "password", True])
def test_a_console_without_a_guard_is_refused(engine: SagaEngine, access: Any) -> None:
    with pytest.raises(ConfigurationError, match="never open to everybody"):
        console(engine, access=access)


def test_a_console_needs_postgresql() -> None:
    with pytest.raises(ConfigurationError, match="MemorySagaStorage"):
        console(SagaEngine(MemorySagaStorage()), access=Passwords(operator=OPERATOR))


def test_a_database_that_does_not_answer_gives_a_sentence() -> None:
    away = SagaEngine(PostgresSagaStorage("postgresql+psycopg://postgres:s3cr3t@127.0.0.1:1/none"))
    with served(console(away, access=LoopbackOnly(Person("dev")))) as url:
        answer = httpx.get(url)

    assert answer.status_code == 503
    assert "did not answer" in answer.text
    assert "s3cr3t" not in answer.text
