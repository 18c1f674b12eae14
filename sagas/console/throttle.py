"""Slows the guessing of passwords: after some failures, each further try has to wait, twice as long each time."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

#: So many failures in a row cost nothing: people mistype.
FREE_FAILURES: Final = 5
#: Seconds that a try has to wait at most.
LONGEST_WAIT: Final = 300.0
#: Seconds without a failure after which the failures of an address are forgotten.
_FORGOTTEN_AFTER: Final = 3600.0
#: For all addresses together: so many failures within a minute.
_MOST_A_MINUTE: Final = 60
_MOST_ADDRESSES: Final = 10_000


class Throttle:
    """Counts failures by address, and by minute over all addresses.

    Args:
        clock: returns seconds; tests pass one that they control.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: For each network: failures in a row, and when the last one was.
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._minute, self._in_minute = 0, 0

    def wait(self, address: str) -> float:
        """Return the seconds for which a try from this address has to wait; 0 if it may be made."""
        now = self._clock()
        with self._lock:
            if int(now // 60) == self._minute and self._in_minute >= _MOST_A_MINUTE:
                return 60 - now % 60
            count, last = self._failures.get(_network(address), (0, now))
            if count < FREE_FAILURES or now - last > _FORGOTTEN_AFTER:
                return 0.0
            return max(0.0, last + min(LONGEST_WAIT, 2.0 ** min(count - FREE_FAILURES, 20)) - now)

    def failed(self, address: str) -> None:
        """Count a failure."""
        now, network = self._clock(), _network(address)
        with self._lock:
            if int(now // 60) != self._minute:
                self._minute, self._in_minute = int(now // 60), 0
            self._in_minute += 1
            count, last = self._failures.pop(network, (0, now))
            self._failures[network] = (1 if now - last > _FORGOTTEN_AFTER else count + 1, now)
            if len(self._failures) > _MOST_ADDRESSES:
                self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address."""
        with self._lock:
            self._failures.pop(_network(address), None)


def _network(address: str) -> str:
    """Return what one client can choose its address from: an IPv6 client has 2**64 of them."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
