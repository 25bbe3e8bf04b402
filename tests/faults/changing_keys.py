"""F18: the keys file changes again and again while requests come."""

from __future__ import annotations

import os
import time

import httpx

from tests.faults.figures import Figures, figures, percentiles
from tests.faults.site import KEY, Scale, Site

NUM_CHANGES = 6
# 1 s is promised; the two cores of a test run the clients too.
BOUND_S = 10.0


def keys_change(site: Site, scale: Scale) -> Figures:
    """
    A key that stays in the file is never refused; one that comes is taken, and one that goes is
    refused, within a second.
    """
    seconds: list[float] = []
    with site.loaded("F18", **scale.load) as load:
        for number in range(NUM_CHANGES):
            write(site, f"{KEY} good\nkey-{number} guest\n")
            changed_s = time.monotonic()
            until_status(site, f"key-{number}", 200)
            seconds.append(time.monotonic() - changed_s)
            # Those of one file come and go together.
            assert number == 0 or status(site, f"key-{number - 1}") == 401
    assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
    assert max(seconds) < BOUND_S
    return figures(load.ledger.entries, changes=NUM_CHANGES, to_change_s=percentiles(seconds))


def write(site: Site, text: str) -> None:
    """Replace the file as editors and Kubernetes do."""
    other = site.keys.with_suffix(".new")
    other.write_text(text)
    os.replace(other, site.keys)


def until_status(site: Site, key: str, wanted: int) -> None:
    """Wait until the key is answered so."""
    deadline_s = time.monotonic() + 3 * BOUND_S
    while (found := status(site, key)) != wanted:
        assert time.monotonic() < deadline_s, found
        time.sleep(0.05)


def status(site: Site, key: str) -> int:
    """What a request with this key gets."""
    headers = {"x-api-key": key}
    return httpx.get(f"{site.url}/v1/models", headers=headers, timeout=30).status_code
