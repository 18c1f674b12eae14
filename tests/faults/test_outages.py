"""Test the short profile of outages: a few, with workers of every pool at once. `make outages` is the long one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from sagas.testing.servers import BrokerServer
from tests.faults.outages import outage, sites

#: Seconds. The third outage comes while workers still reconnect.
LENGTHS = (0.3, 2.5, 0.3)


@pytest.mark.slow(30)
@pytest.mark.timeout(180)
def test_outages_of_the_broker_end_no_worker_of_any_pool(server_directory: Path) -> None:
    directory = server_directory / "outages"
    directory.mkdir(mode=0o755)
    random = Random(1)
    with BrokerServer(directory / "broker") as broker, sites(directory, broker) as all_sites:
        for seconds in LENGTHS:
            outage(all_sites, broker, random, seconds, settle=60)
            assert all(site.alive() for site in all_sites)
        for site in all_sites:
            log = site.worker.log.read_text()
            assert "Unrecoverable error" not in log
            assert "Error on restarting" not in log
