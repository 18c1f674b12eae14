"""Callback links over real HTTP: what is shown, what answers, and that each answers once."""

from __future__ import annotations

import html
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest

from sagas import PostgresSagaStorage, Saga, SagaEngine, SagaStatus, Settings, callback_url
from sagas.callbacks import CallbackApp
from sagas.callbacks.links import Link, Links
from sagas.storage.records import SignalKind
from tests.integration.callbacks.conftest import (
    OTHER_SECRET,
    SECRET,
    Accepted,
    Deliver,
    Parcel,
    SendParcel,
    Shop,
    serving,
)

CHOICES = {"Accept": {"accepted": True}, "Refuse": {"accepted": False, "note": "too heavy"}}


def post(client: httpx.Client, url: str, choice: str | None = None) -> httpx.Response:
    return client.post(url, data=None if choice is None else {"choice": choice})


# -- asking and answering ---------------------------------------------------------------------------------------


def test_opening_a_link_shows_the_answer_and_sends_nothing(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()
    url = shop.link(saga_id, question="Does the courier take parcel 7?")

    for _ in range(2):
        page = client.get(url)

    assert page.status_code == 200
    assert "<h1>Does the courier take parcel 7?</h1>" in page.text
    assert '<button name=choice value="Confirm">Confirm</button>' in page.text
    assert html.escape('"accepted": true') in page.text
    assert str(saga_id) not in page.text
    assert shop.signals(saga_id) == []


def test_posting_answers_and_the_saga_goes_on(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()

    page = post(client, shop.link(saga_id), "Confirm")

    assert (page.status_code, "Your answer was recorded" in page.text) == (200, True)
    (signal,) = shop.signals(saga_id)
    assert (signal.kind, signal.name, signal.actor) == (SignalKind.SIGNAL, "courier", "callback link")
    assert shop.goes_on(saga_id) is SagaStatus.COMPLETED
    assert '"accepted":true' in shop.storage.load(saga_id).context


def test_one_of_several_choices_is_the_answer(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()
    url = shop.link(saga_id, choices=CHOICES)
    buttons = re.findall(r'<button name=choice value="(\w+)">', client.get(url).text)

    assert buttons == ["Accept", "Refuse"]
    assert post(client, url, "Refuse").status_code == 200
    assert post(client, url, "Accept").status_code == 410

    (signal,) = shop.signals(saga_id)
    assert signal.payload is not None
    assert '"too heavy"' in signal.payload


def test_a_service_answers_with_an_empty_request(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()

    assert client.post(shop.link(saga_id), headers={"content-type": "application/json"}).status_code == 200

    assert len(shop.signals(saga_id)) == 1


@pytest.mark.parametrize("body", [{}, {"choice": "Perhaps"}, {"choice": ""}, {"other": "Accept"}])
def test_an_answer_that_is_none_of_the_choices_changes_nothing(
    shop: Shop, client: httpx.Client, body: dict[str, str]
) -> None:
    saga_id = shop.waiting()
    url = shop.link(saga_id, choices=CHOICES)

    assert client.post(url, data=body).status_code == 400

    assert shop.signals(saga_id) == []
    assert post(client, url, "Accept").status_code == 200


def test_a_payload_may_be_an_instance_of_the_waits_type(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()

    assert post(client, shop.link(saga_id, Accepted(accepted=False, note="não"))).status_code == 200

    assert shop.goes_on(saga_id) is SagaStatus.COMPLETED
    assert '"accepted":false' in shop.storage.load(saga_id).context


def test_an_answer_that_comes_before_the_saga_waits_is_kept(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.engine.start(SendParcel, Parcel("lamp"))

    assert post(client, shop.link(saga_id)).status_code == 200

    assert shop.goes_on(saga_id) is SagaStatus.COMPLETED


# -- once -------------------------------------------------------------------------------------------------------


def test_a_used_link_is_closed_for_all_methods(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()
    url = shop.link(saga_id)
    post(client, url)

    answers = [client.get(url), client.head(url), post(client, url)]

    assert [answer.status_code for answer in answers] == [410, 410, 410]
    assert answers[0].text == answers[2].text
    assert len(shop.signals(saga_id)) == 1


def test_of_requests_at_one_moment_one_answers(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()
    url = shop.link(saga_id, choices=CHOICES)
    ready = threading.Barrier(8)

    def answer(number: int) -> int:
        ready.wait(30)
        return post(client, url, ("Accept", "Refuse")[number % 2]).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(answer, range(8)))

    assert statuses == [200, *[410] * 7]
    assert len(shop.signals(saga_id)) == 1


def test_two_links_of_a_step_that_ran_twice_are_answered_once(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()
    first = shop.link(saga_id)
    again = shop.link(saga_id, expires=timedelta(days=3))
    other = shop.link(saga_id, link_id="the second courier")

    assert post(client, first).status_code == 200
    assert post(client, again).status_code == 410
    # One with an id of its own is another link.
    assert post(client, other).status_code == 200

    assert {signal.signal_id for signal in shop.signals(saga_id)} == {"link:callback", "link:the second courier"}


@pytest.mark.parametrize("saga", [SendParcel, Deliver])
def test_a_link_is_closed_once_the_saga_no_longer_waits(
    shop: Shop, client: httpx.Client, saga: type[Saga[Parcel]]
) -> None:
    saga_id = shop.waiting(saga)
    url = shop.link(saga_id)
    shop.engine.signal(saga_id, "courier", Accepted(accepted=True), actor="the phone")
    assert client.get(url).status_code == 200  # it is not known yet which of the two comes first

    shop.goes_on(saga_id)

    assert [client.get(url).status_code, post(client, url).status_code] == [410, 410]
    assert len(shop.signals(saga_id)) == 1


@pytest.mark.parametrize("saga", [SendParcel, Deliver])
def test_a_link_is_closed_while_its_saga_is_undone(shop: Shop, client: httpx.Client, saga: type[Saga[Parcel]]) -> None:
    saga_id = shop.waiting(saga)
    url = shop.link(saga_id)
    shop.engine.cancel(saga_id, "the order was withdrawn")

    assert shop.goes_on(saga_id) is (SagaStatus.COMPENSATED if saga is SendParcel else SagaStatus.COMPENSATING)
    assert [client.get(url).status_code, post(client, url).status_code] == [410, 410]


def test_a_link_for_the_former_name_of_a_wait_is_answered_and_then_closed(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting(Deliver)
    options = {"payload": {"accepted": True}, "expires": timedelta(days=1), "engine": shop.engine}
    first, second = (callback_url(saga_id, "carrier", link_id=each, **options) for each in ("a", "b"))

    assert post(client, first).status_code == 200
    assert client.get(second).status_code == 200
    assert shop.goes_on(saga_id) is SagaStatus.RUNNING

    assert client.get(second).status_code == 410


# -- wrong links ------------------------------------------------------------------------------------------------


def test_an_expired_link_is_closed(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()
    url = shop.link(saga_id, expires=timedelta(seconds=2))
    assert client.get(url).status_code == 200

    deadline = time.monotonic() + 60
    while client.get(url).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.1)

    assert [client.get(url).status_code, post(client, url).status_code] == [410, 410]
    assert shop.signals(saga_id) == []


def tampered(token: str) -> list[str]:
    content, signature = token.split(".")
    changed = [
        content[:at] + ("A" if content[at] != "A" else "B") + content[at + 1 :] for at in range(0, len(content), 7)
    ]
    return [
        *(f"{each}.{signature}" for each in changed),
        f"{content}.{signature[:-2]}AA" if not signature.endswith("AA") else f"{content}.{signature[:-2]}BB",
        f"{content}.{'A' * 43}",
        f"{content}.",
        content,
        f".{signature}",
        f"{token}A",
        f"{token}.{signature}",
    ]


def test_a_wrong_link_a_foreign_one_and_one_of_no_saga_look_alike(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()
    url = shop.link(saga_id)
    base, _, token = url.rpartition("/")
    foreign = Links([OTHER_SECRET]).token(_link_of(saga_id))
    unknown = Links([SECRET]).token(_link_of(uuid4()))
    wrong = [*tampered(token), foreign, unknown, "", "a", "x" * 3000]

    answers = [client.request(method, f"{base}/{each}") for each in wrong for method in ("GET", "POST")]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    assert len({tuple(answer.headers[name] for name in answer.headers if name != "date") for answer in answers}) == 1
    assert shop.signals(saga_id) == []


def _link_of(saga_id: UUID, **changed: Any) -> Link:
    values = {"saga_id": saga_id, "wait": "courier", "choices": {"Confirm": {"accepted": True}}, "question": None}
    return Link(**{**values, "link_id": "callback", "expires_at": 4_000_000_000, **changed})


def test_a_signature_for_another_purpose_is_no_link(shop: Shop, client: httpx.Client) -> None:
    from itsdangerous import URLSafeSerializer

    saga_id = shop.waiting()
    base, _, token = shop.link(saga_id).rpartition("/")
    content = {"s": saga_id.hex, "w": "courier", "c": [["Confirm", {"accepted": True}]], "q": None, "i": "a", "e": 4e9}

    assert client.get(f"{base}/{URLSafeSerializer(SECRET).dumps(content)}").status_code == 404
    assert client.get(f"{base}/{token}").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/{0}/",
        "//{0}",
        "/./{0}",
        "/x/../{0}",
        "/{0}/..",
        "/{0};a",
        "/%2F{0}",
        "/{0}%00",
        "/{0}%0a",
        "/callbacks/{0}",
        "/a/{0}",
    ],
)
def test_only_the_exact_path_is_a_link(shop: Shop, path: str) -> None:
    saga_id = shop.waiting()
    parts = urlsplit(shop.link(saga_id))
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=30)

    for method in ("GET", "POST"):
        connection.request(method, path.format(parts.path.removeprefix("/")))
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 404
    connection.close()

    assert shop.signals(saga_id) == []


def test_a_link_for_a_wait_that_the_saga_has_not_is_closed_and_logged(
    shop: Shop, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    saga_id = shop.waiting()
    base = shop.link(saga_id).rpartition("/")[0]
    misnamed = Links([SECRET]).token(_link_of(saga_id, wait="porter"))

    with caplog.at_level(logging.WARNING, "sagas"):
        answers = [client.get(f"{base}/{misnamed}"), client.get(shop.link(saga_id, {"accepted": "perhaps?"}))]

    assert [answer.status_code for answer in answers] == [410, 410]
    assert answers[0].text == answers[1].text
    assert "has no wait 'porter': it waits for 'courier'" in caplog.text
    assert "the signal 'courier' was refused" in caplog.text
    assert misnamed not in caplog.text


# -- requests that are no answers ---------------------------------------------------------------------------------


def test_head_has_the_headers_of_get_and_no_body(shop: Shop, client: httpx.Client) -> None:
    url = shop.link(shop.waiting())

    got, asked = client.get(url), client.head(url)

    assert (asked.status_code, asked.content) == (200, b"")
    assert {**asked.headers, "date": ""} == {**got.headers, "date": ""}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_other_methods_are_refused_for_any_path(shop: Shop, client: httpx.Client, method: str) -> None:
    saga_id = shop.waiting()
    url = shop.link(saga_id)

    answers = [client.request(method, each) for each in (url, f"{url}x")]

    assert [answer.status_code for answer in answers] == [405, 405]
    assert answers[0].headers["allow"] == "GET, HEAD, POST"
    assert answers[0].text == answers[1].text
    assert shop.signals(saga_id) == []


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
def test_a_body_of_another_type_is_refused(shop: Shop, client: httpx.Client, kind: str) -> None:
    saga_id = shop.waiting()

    answer = client.post(shop.link(saga_id), content=b"choice=Confirm", headers={"content-type": kind})

    assert (answer.status_code, answer.headers["accept-post"]) == (415, "application/x-www-form-urlencoded")
    assert shop.signals(saga_id) == []


def test_a_charset_behind_the_type_does_no_harm(shop: Shop, client: httpx.Client) -> None:
    kind = "Application/X-WWW-Form-Urlencoded; charset=UTF-8"

    answer = client.post(shop.link(shop.waiting()), content=b"choice=Confirm", headers={"content-type": kind})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b"choice=%ff", b"choice=Confirm&choice=Confirm", b"choice=Confirm&a=b", b"&&&", b"choice"]
)
def test_a_form_that_cannot_be_read_is_refused(shop: Shop, client: httpx.Client, body: bytes) -> None:
    saga_id = shop.waiting()
    headers = {"content-type": "application/x-www-form-urlencoded"}

    assert client.post(shop.link(saga_id), content=body, headers=headers).status_code == 400

    assert shop.signals(saga_id) == []


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "in chunks"])
def test_a_large_body_is_refused_before_it_is_read(shop: Shop, client: httpx.Client, chunked: bool) -> None:
    saga_id = shop.waiting()
    chunk, sent = b"choice=Confirm&" + b"x" * 1000, []

    def chunks() -> Any:
        for _ in range(100_000):
            sent.append(1)
            yield chunk

    content: Any = chunks() if chunked else chunk * 3
    headers = {"content-type": "application/x-www-form-urlencoded"}
    try:
        status = client.post(shop.link(saga_id), content=content, headers=headers).status_code
    except httpx.TransportError:
        status = 413  # the server closed the connection while the client was sending

    assert status == 413
    assert len(sent) < 100_000
    assert shop.signals(saga_id) == []


def test_a_label_of_any_characters_comes_back_as_it_is(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()
    label = '<b>"Übernehmen" & ab\'</b> 🚚'
    url = shop.link(saga_id, choices={label: {"accepted": True}, "🚚" * 100: {"accepted": False}})
    (shown, longest) = re.findall(r'<button name=choice value="(.*?)">', client.get(url).text)

    assert html.unescape(shown) == label
    assert post(client, url, html.unescape(longest)).status_code == 200


# -- the page -----------------------------------------------------------------------------------------------------


def test_what_comes_from_a_link_is_escaped(shop: Shop, client: httpx.Client) -> None:
    attack = "</pre><script>alert(1)</script>\" onclick='x'"
    url = shop.link(
        shop.waiting(), choices={attack: {"accepted": True, "note": attack}, "b": {"accepted": False}}, question=attack
    )

    page = client.get(url).text

    assert "<script" not in page
    assert page.count("onclick='x'") == 0
    assert page.count(html.escape(attack)) >= 3


def test_pages_load_nothing_and_are_not_kept_indexed_or_framed(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()
    url = shop.link(saga_id)
    pages = [client.get(url), client.get(f"{url}x"), client.put(url), post(client, url), client.get(url)]

    assert [page.status_code for page in pages] == [200, 404, 405, 200, 410]
    for page in pages:
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "form-action 'self'; base-uri 'none'; frame-ancestors 'none'" in policy
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-robots-tag"].startswith("noindex")
        assert page.headers["referrer-policy"] == "no-referrer"
        assert "src=" not in page.text
        assert "href=" not in page.text


# -- servers and settings -----------------------------------------------------------------------------------------


def test_links_of_the_former_secret_are_answered_while_both_are_set(shop: Shop, client: httpx.Client) -> None:
    saga_id = shop.waiting()
    former = shop.link(saga_id)
    shop.engine.settings = shop.engine.settings.model_copy(update={"callback_secret": (OTHER_SECRET, SECRET)})

    newer = shop.link(saga_id)
    assert [client.get(url).status_code for url in (former, newer)] == [200, 200]
    shop.engine.settings = shop.engine.settings.model_copy(update={"callback_secret": (OTHER_SECRET,)})
    assert [client.get(url).status_code for url in (former, newer)] == [404, 200]


def test_a_database_that_is_away_is_no_end_of_the_link(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    away = PostgresSagaStorage("postgresql+psycopg://nobody@127.0.0.1:1/none")
    engine = SagaEngine(away, settings=Settings(callback_secret=(SECRET,)))
    token = Links([SECRET]).token(_link_of(uuid4()))

    with serving(CallbackApp(engine)) as address:
        answer = client.post(f"{address}/{token}")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert "was not recorded" in answer.text
    assert token not in caplog.text
    away.close()


def test_without_a_secret_nothing_is_answered_and_the_log_says_why(
    shop: Shop, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    url = shop.link(shop.waiting())
    shop.engine.settings = Settings()

    assert client.get(url).status_code == 500
    assert "SAGAS_CALLBACK_SECRET is not set: set it to a random text of 32 characters or more" in caplog.text


def test_it_is_mounted_in_fastapi_beside_other_routes(
    emptied_storage: PostgresSagaStorage, client: httpx.Client
) -> None:
    from fastapi import FastAPI

    site = FastAPI()
    site.get("/health")(lambda: "up")
    with serving(site) as address:
        shop = Shop(emptied_storage, f"{address}/shop/callbacks/")
        site.mount("/shop/callbacks", CallbackApp(shop.engine))
        saga_id = shop.waiting()
        url = shop.link(saga_id)

        assert url.startswith(f"{address}/shop/callbacks/eyJ")
        assert client.get(f"{address}/health").json() == "up"
        assert client.get(f"{address}/shop/callbacks").status_code in (307, 404)
        assert client.get(f"{url}/").status_code == 404
        assert "Confirm" in client.get(url).text
        assert post(client, url).status_code == 200
        assert post(client, url).status_code == 410

    assert len(shop.signals(saga_id)) == 1


def test_it_is_mounted_in_fastapi_behind_a_proxy_that_strips_a_prefix(
    emptied_storage: PostgresSagaStorage, client: httpx.Client
) -> None:
    from fastapi import FastAPI

    site = FastAPI()
    with serving(site, root_path="/api") as address:
        shop = Shop(emptied_storage, f"{address}/callbacks")
        site.mount("/callbacks", CallbackApp(shop.engine))

        assert client.get(shop.link(shop.waiting())).status_code == 200


def test_a_websocket_is_refused(shop: Shop) -> None:
    parts = urlsplit(shop.link(shop.waiting()))
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}

    connection.request("GET", parts.path, headers={**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})

    assert connection.getresponse().status != 101
    connection.close()
