"""What is no request, and bodies that are no JSON, sent to a real server: classes A and B."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.api.kserve.refusals import Witness
from tests.reliability import bodies, wires
from tests.reliability.sending import send_all
from tests.reliability.subset import PARTS
from tests.servers import Server
from tests.wire.cases import bad


@pytest.fixture(scope="module")
def unharmed(tiny_server: Server) -> Iterator[Witness]:
    """The shared server, and what it was before."""
    with closing(Witness(tiny_server)) as witness:
        yield witness


def test_sockets(unharmed: Witness) -> None:
    """Class A: each gets the status that tests/wire has for it, and the server is unharmed."""
    tally = wires.send(unharmed)
    assert tally.sent == len(list(bad()))
    assert not tally.faults, "\n".join(tally.faults)


def test_bodies(unharmed: Witness) -> None:
    """Class B."""
    tally = send_all(unharmed, PARTS["B"].of(bodies.cases()))
    assert tally.sent >= 100
    assert not tally.faults, "\n".join(tally.faults)
