"""Each key's account, and what of it the metrics show."""

from __future__ import annotations

from prometheus_client import REGISTRY

from gemma_serve.api.admission.tenants import MAX_LABELS, Tenants
from gemma_serve.api.keys import Key

REQUESTS = "gemma_serve_key_requests_total"


def others() -> float:
    """Requests of all keys together that have no series of their own."""
    labels = {"key": "other", "outcome": "taken"}
    return REGISTRY.get_sample_value(REQUESTS, labels) or 0.0


def test_more_names_than_series() -> None:
    """Names beyond the first 64 share one series; those that have one keep it."""
    tenants, before = Tenants(None, None), others()
    keys = [Key(f"name-{at}", f"name-{at}") for at in range(MAX_LABELS + 3)]
    for key in [*keys, *keys]:
        tenants.of(key).asked("taken")
    assert [tenants.of(key).label for key in keys] == [
        *(key.label for key in keys[:MAX_LABELS]),
        *("other",) * 3,
    ]
    assert len({tenants.of(key) for key in keys}) == MAX_LABELS + 3
    assert others() == before + 6
    assert tenants.of(Key("another key of the first name", "name-0")).label == "name-0"
