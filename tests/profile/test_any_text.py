"""Whatever stands in a file, the loader answers with a profile or with mistakes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemma_serve.errors import ProfileError
from gemma_serve.profile.keys import all_keys
from gemma_serve.profile.load import LoadedProfile, load_profile

FIELDS = {"max_num_seqs": {"type": "integer"}, "seed": {"anyOf": [{"type": "integer"}]}, "x": {}}
KEYS = st.sampled_from([key.rpartition(".")[2] for key in all_keys()]) | st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)
MAPS = st.dictionaries(KEYS, VALUES, max_size=6)
WORDS = ["model: ", "extends: ", "engine: ", "server", "dtype", "0", "1e9", ".nan", "null", "on"]
MARKS = [
    "\n",
    "\n  ",
    "\t",
    "- ",
    "? ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "<<: ",
    "---\n",
]
TRAPS = ["!!int ", "!x ", "'", '"', "#", "%", "@", "|", "~", "...\n", "0x", "\\ud800", "\0", "\x85"]
FRAGMENTS = st.sampled_from([*WORDS, *MARKS, *TRAPS])
TEXTS = (
    MAPS.map(lambda value: yaml.safe_dump(value, allow_unicode=True))
    | st.lists(FRAGMENTS, max_size=25).map("".join)
    | st.text(max_size=60)
)


def lines_for(data: bytes, overrides: list[str]) -> list[str]:
    """What the loader prints; empty for a profile."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "p.yaml"
        path.write_bytes(data)
        try:
            loaded = load_profile(str(path), overrides, engine_fields=FIELDS)
        except ProfileError as error:
            return [str(mistake) for mistake in error.mistakes] or ["an error that says nothing"]
    assert isinstance(loaded, LoadedProfile)
    return []


def assert_printable(lines: list[str]) -> None:
    for line in lines:
        line.encode()
        assert line != "an error that says nothing"
        assert "pydantic" not in line


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS)
def test_any_text(text):
    """Any text is a profile or a ProfileError whose lines can be printed."""
    assert_printable(lines_for(text.encode("utf-8", "surrogatepass"), []))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(data):
    """So are any bytes."""
    assert_printable(lines_for(data, []))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30) | st.tuples(KEYS, st.text(max_size=12)).map("=".join))
def test_any_override(override):
    """So is any --set."""
    assert_printable(lines_for(b"model: m", [override]))
