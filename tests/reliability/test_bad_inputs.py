"""A part of each class of bad inputs (subset.py); `make reliability` sends all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.api.kserve.refusals import Witness
from tests.conftest import KEY
from tests.reliability import (
    bodies,
    described,
    fields,
    grammars,
    mutations,
    names,
    prompts,
    sizes,
    streams,
)
from tests.reliability.case import Case
from tests.reliability.sending import Tally, send_all
from tests.reliability.subset import LEAST_HAND_MADE, PARTS
from tests.servers import Server
from tests.wire.cases import bad


@pytest.fixture(scope="module")
def unharmed(tiny_server: Server) -> Iterator[Witness]:
    """The shared server, and what it was before."""
    with closing(Witness(tiny_server)) as witness:
        yield witness


def check(witness: Witness, cases: Iterable[Case]) -> None:
    """No fault in any answer, nor in the server afterwards."""
    held(send_all(witness, cases))


def held(tally: Tally) -> None:
    """Something was sent, and nothing is wrong."""
    assert tally.sent
    assert not tally.faults, "\n".join(tally.faults)


def _fields(witness: Witness) -> list[Case]:
    document = witness.http.get("/openapi.json").json()
    return list(fields.cases(document, witness.http.get("/v2/models/tiny").json()))


def test_fields(unharmed: Witness) -> None:
    """Class C: numbers at their bounds and beyond, over four APIs."""
    check(unharmed, PARTS["C"].of(_fields(unharmed)))


def test_classes_are_whole(unharmed: Witness) -> None:
    """As many hand-made inputs as promised, in each class and in all; no two of one name."""
    made = {
        "A": list(bad()),
        "B": list(bodies.cases()),
        "C": _fields(unharmed),
        "D": list(sizes.cases()),
        "E": list(grammars.groups()),
        "F": list(prompts.cases()),
        "H": list(names.bad_keys()),
        "I": list(names.bad_names()),
        "J": list(streams.cases()),
    }
    least = {"A": 120, "B": 100, "C": 900, "D": 80, "E": 160, "F": 80, "H": 70, "I": 60, "J": 220}
    counts = {letter: len(cases) for letter, cases in made.items()}
    assert all(counts[letter] >= least[letter] for letter in least), counts
    assert sum(counts.values()) >= LEAST_HAND_MADE
    for letter in "CE":
        named = [str(case) for case in made[letter]]
        assert len(set(named)) == len(named), letter


def test_sizes(unharmed: Witness) -> None:
    """Class D."""
    check(unharmed, PARTS["D"].of(sizes.cases()))


def test_structured_outputs(unharmed: Witness) -> None:
    """Class E, one at a time: what is good before and after a bad one has the same answer."""
    held(grammars.send_in_order(unharmed, PARTS["E"].of(grammars.groups())))


def test_names(unharmed: Witness) -> None:
    """Class I."""
    check(unharmed, PARTS["I"].of(names.bad_names()))


def test_streams(unharmed: Witness) -> None:
    """Class J; KServe's are all in tests/api/kserve."""
    check(unharmed, PARTS["J"].of(streams.cases()))


def test_described(unharmed: Witness) -> None:
    """Class K: what the OpenAPI document says and does not allow."""
    document, part = unharmed.http.get("/openapi.json").json(), PARTS["K"]
    check(unharmed, described.cases(document, part.count, part.seed))


def test_mutations(unharmed: Witness) -> None:
    """Class L: changed bytes get a 2xx, a 4xx, or a closed port."""
    part = PARTS["L"]
    found = mutations.send(unharmed, mutations.mutated(part.count, part.seed))
    assert found.sent == part.count
    assert not found.faults, "\n".join(found.faults)


def test_keys(keyed_server: Server) -> None:
    """Class H: nothing but the probes answers without a key."""
    with closing(Witness(replace(keyed_server, headers={"x-api-key": KEY}))) as witness:
        check(witness, PARTS["H"].of(names.bad_keys()))
