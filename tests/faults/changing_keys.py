"""F18: the keys file changes again and again while requests come."""

from __future__ import annotations

import os
import time

import httpx

from tests.faults.figures import Figures, figures, percentiles
from tests.faults.site import KEY, Scale, Site
from tests.reliability.trends import Check

NUM_CHANGES = 6
PROMISED_S, IN_TESTS_S = 1.0, 10.0
POLL_S = 0.02


def keys_change(site: Site, scale: Scale) -> Figures:
    """
    A key that stays in the file is never refused; one that comes is taken, and one that goes is
    refused, within a second.
    """
    to_come_s: list[float] = []
    to_go_s: list[float] = []
    with site.loaded("F18", **scale.load) as load, site.server.client() as http:
        for number in range(NUM_CHANGES):
            write(site, f"{KEY} good\nkey-{number} guest\n")
            changed_s = time.monotonic()
            to_come_s.append(until_status(http, f"key-{number}", 200) - changed_s)
            # Those of one file come and go together.
            assert number == 0 or status(http, f"key-{number - 1}") == 401
        write(site, f"{KEY} good\n")
        changed_s = time.monotonic()
        to_go_s.append(until_status(http, f"key-{NUM_CHANGES - 1}", 401) - changed_s)
    assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
    most_s = scale.most(PROMISED_S, IN_TESTS_S)
    checks = [
        Check("s until a new key is taken, and the old one refused", max(to_come_s), most_s),
        Check("s until a key that goes alone is refused", max(to_go_s), most_s),
    ]
    seconds = percentiles([*to_come_s, *to_go_s])
    return figures(load.ledger.entries, checks=checks, changes=NUM_CHANGES + 1, to_change_s=seconds)


def write(site: Site, text: str) -> None:
    """Replace the file as editors and Kubernetes do."""
    other = site.keys.with_suffix(".new")
    other.write_text(text)
    os.replace(other, site.keys)


def until_status(http: httpx.Client, key: str, wanted: int) -> float:
    """Wait until the key is answered so, and return when it was, on the monotonic clock."""
    deadline_s = time.monotonic() + 3 * IN_TESTS_S
    while (found := status(http, key)) != wanted:
        assert time.monotonic() < deadline_s, found
        time.sleep(POLL_S)
    return time.monotonic()


def status(http: httpx.Client, key: str) -> int:
    """What a request with this key gets."""
    return http.get("/v1/models", headers={"x-api-key": key}).status_code
