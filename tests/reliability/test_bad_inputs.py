"""A part of each class of bad inputs; `make reliability` sends all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest

from tests.api.kserve.refusals import Witness
from tests.conftest import KEY
from tests.reliability import described, mutations, names, sizes, streams
from tests.reliability.case import Case
from tests.reliability.sending import send_all
from tests.servers import Server

NUM_MUTATIONS = 600
NUM_DESCRIBED = 400


@pytest.fixture(scope="module")
def unharmed(tiny_server: Server) -> Iterator[Witness]:
    """The shared server, and what it was before."""
    with closing(Witness(tiny_server)) as witness:
        yield witness


def check(witness: Witness, cases: Iterator[Case]) -> None:
    """No fault in any answer, nor in the server afterwards."""
    tally = send_all(witness, cases)
    assert tally.sent
    assert not tally.faults, "\n".join(tally.faults)


def test_sizes(unharmed: Witness) -> None:
    """Class D."""
    check(unharmed, sizes.cases())


def test_names(unharmed: Witness) -> None:
    """Class I."""
    check(unharmed, names.bad_names())


def test_streams(unharmed: Witness) -> None:
    """Class J, every third; KServe's are all in tests/api/kserve."""
    check(unharmed, islice(streams.cases(), 0, None, 3))


def test_described(unharmed: Witness) -> None:
    """Class K: what the OpenAPI document says and does not allow; 400 cases of 8,000."""
    document = unharmed.http.get("/openapi.json").json()
    check(unharmed, described.cases(document, NUM_DESCRIBED, seed=1))


def test_mutations(unharmed: Witness) -> None:
    """Class L: changed bytes get a 2xx, a 4xx, or a closed port."""
    base_url = unharmed.server.base_url
    found = asyncio.run(mutations.send(base_url, mutations.mutated(NUM_MUTATIONS, seed=1)))
    assert found.sent == NUM_MUTATIONS
    assert not found.faults, "\n".join(found.faults)
    unharmed.check_unharmed()


def test_keys(keyed_server: Server) -> None:
    """Class H: nothing but the probes answers without a key."""
    with closing(Witness(replace(keyed_server, headers={"x-api-key": KEY}))) as witness:
        check(witness, names.bad_keys())
