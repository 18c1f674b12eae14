"""The pages: what they show, and that hostile text stays text."""

from __future__ import annotations

from tests.integration.console.conftest import Browser, Started
from tests.integration.console.shop import Restock


def test_the_overview_counts_sagas_by_name_and_state(vic: Browser, started: Started) -> None:
    started()
    started("stuck")
    started(saga=Restock)

    page = vic.get("/").text

    assert ">1 saga</a> failed as often as allowed" in page
    assert "place-order" in page
    assert "restock" in page
    assert "None has ever run" in page  # scans


def test_a_saga_shows_its_steps_and_why_it_does_not_run(vic: Browser, started: Started) -> None:
    saga_id = started()

    page = vic.get(f"/sagas/{saga_id}").text

    assert "It waits for the signal courier-accepts, which has not come." in page
    for step in ("reserve", "charge", "courier-accepts", "cool-down", "ship"):
        assert f"<strong>{step}</strong>" in page
    assert "Retry now" not in page  # a viewer
