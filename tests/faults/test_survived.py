"""Faults that one server survives, one after the other; the last ones end it (F5 has its own)."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.faults.catalogue import ON_SITE
from tests.faults.endings import model_raises
from tests.faults.figures import Fault, broken
from tests.faults.shortages import disk_is_full_at_the_start
from tests.faults.site import Scale, Site, site_of

pytestmark = pytest.mark.engine
SCALE = Scale()


@pytest.fixture(scope="module")
def site(
    profile: Path, engine_slot: contextlib.ExitStack, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    """The server of all these faults."""
    engine_slot.close()
    settings = ("server.grpc_port=0", "limits.body_timeout_s=20")
    return engine_slot.enter_context(site_of(profile, tmp_path_factory.mktemp("site"), *settings))


@pytest.mark.parametrize("fault", ON_SITE, ids=lambda fault: f"{fault.name} {fault.title}")
def test_fault(site: Site, fault: Fault) -> None:
    """Nothing is lost: client, access log and engine tell of the same ends."""
    found = fault.run(site, SCALE)
    print(fault.name, found)  # for `pytest -rP`
    assert found["lost"] == 0
    assert not broken(found)


@pytest.mark.usefixtures("no_other")
def test_model_raises(profile: Path, tmp_path: Path) -> None:
    """F5, on a server of its own: it does not survive."""
    found = model_raises(profile, tmp_path, SCALE)
    assert found["lost"] == 0
    assert not broken(found)


def test_disk_is_full_at_the_start(profile: Path, tmp_path: Path) -> None:
    """F14: one sentence, before vLLM is imported."""
    found = disk_is_full_at_the_start(profile, tmp_path, SCALE)
    assert not broken(found)
    assert found["starts"]["no place"]["exit_code"] == 3
