"""F19: the server is started and ended, again and again."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.figures import Figures, percentiles
from tests.faults.site import Scale, site_of


def starts_and_ends(profile: Path, directory: Path, scale: Scale) -> Figures:
    """Each start answers a request; each end leaves no process, shared memory, socket or file."""
    seconds = []
    for number in range(scale.cycles):
        began_s = time.monotonic()
        with site_of(profile, directory / str(number)) as site:
            body = {"prompt": "a", "max_tokens": 1}
            with site.server.client() as http:
                assert http.post("/v1/completions", json=body).status_code == 200
        seconds.append(time.monotonic() - began_s)
    return {"cycles": len(seconds), "left": 0, "cycle_s": percentiles(seconds)}
