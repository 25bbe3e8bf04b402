"""What is wrong with the YAML text itself, sentence by sentence."""

from __future__ import annotations

import pytest

from gemma_serve.errors import ProfileError
from gemma_serve.profile.load import load_profile

SMALLEST = "the smallest profile is one line: 'model: google/gemma-3-27b-it'"
FLAT = (
    "The YAML is nested deeper than 40 levels, or its aliases expand to more than 10000 values; "
    "write it out flat."
)
BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [f"my.yaml:1: The profile is empty; {SMALLEST}."]),
        ("# only words\n", [f"my.yaml:1: The profile is empty; {SMALLEST}."]),
        ("---\n", [f"my.yaml:1: The profile is empty; {SMALLEST}."]),
        ("- a", [f"my.yaml:1: The profile must be a map of keys, not a list; {SMALLEST}."]),
        (
            "gemma",
            [f"my.yaml:1: The profile must be a map of keys, not a single value; {SMALLEST}."],
        ),
        (
            "model: m\nserver:\n\tport: 1",
            ["my.yaml:3: A tab stands where YAML allows only spaces; replace it with spaces."],
        ),
        (
            "model: m\nserver: {port: 1\ndtype: bf16",
            [
                "my.yaml:3: This is not valid YAML (expected ',' or '}', but got ':'); "
                "mend this line or the one above it."
            ],
        ),
        (
            "model: a: b",
            [
                "my.yaml:1: This is not valid YAML (mapping values are not allowed here); "
                "mend this line or the one above it."
            ],
        ),
        (
            "model: m\n---\nmodel: n",
            [
                "my.yaml:2: The file holds more than one YAML document; "
                "keep one ('---' starts another)."
            ],
        ),
        (
            "model: m\nx\0: 1",
            ["my.yaml:2: The character '\\x00' is not allowed in YAML; remove it."],
        ),
        (
            "model: m\ndtype: fp8\nmodel: n",
            ["my.yaml:3: The key 'model' is given twice (first on line 1); keep one."],
        ),
        (
            "model: m\n1: a",
            [
                "my.yaml:2: A key must be a word, and YAML reads '1' as a number; "
                'if you mean that word, put it in quotes: "1".'
            ],
        ),
        (
            'model: m\nenv: {NO: "1"}',
            [
                "my.yaml:2: A key must be a word, and YAML reads 'NO' as true or false; "
                'if you mean that word, put it in quotes: "NO".'
            ],
        ),
        ("model: m\n? [a]\n: b", ["my.yaml:2: A key must be a word, not a list or a map."]),
        (
            "model: m\nserver: &s {port: 1}\nlimits:\n  <<: *s",
            ["my.yaml:4: YAML's merge key '<<' is not read here; use extends to share keys."],
        ),
        (
            "model: m\nrevision: !env REV",
            [
                "my.yaml:2: 'REV' can't be read as the YAML tag '!env'; "
                "write plain text, a number, true, false or null."
            ],
        ),
        (
            "model: m\nengine: !!set {a}",
            ["my.yaml:2: The YAML tag 'tag:yaml.org,2002:set' is not read here; remove it."],
        ),
        (
            'model: m\nrevision: "\\ud800"',
            [
                "my.yaml:2: '\\ud800' can't be read as text; "
                "write plain text, a number, true, false or null."
            ],
        ),
        ("model: m\nengine: &e {a: *e}", [f"my.yaml:1: {FLAT}"]),
        ("model: m\nengine: " + "[" * 3000, [f"my.yaml:1: {FLAT}"]),
        (BOMB, [f"my.yaml:1: {FLAT}"]),
    ],
)
def test_broken_text(mistakes, text, lines):
    """Text that is no profile is told with its line and what to do."""
    assert mistakes(text) == lines


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            b"model: m\nrevision: caf\xe9",
            "b.yaml:2: The byte 0xe9 is not UTF-8; save the file as UTF-8.",
        ),
        (b"\xff\xfem\0", "b.yaml:1: The byte 0xff is not UTF-8; save the file as UTF-8."),
        (b"#" * 300_000, "b.yaml: The profile is larger than 256 KiB; is it the right file?"),
    ],
)
def test_bytes_that_are_no_profile(tmp_path, monkeypatch, data, line):
    """Bytes that are not UTF-8, or too many, are told before any YAML is read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.yaml").write_bytes(data)
    with pytest.raises(ProfileError) as caught:
        load_profile("b.yaml")
    assert str(caught.value) == line


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    """Editors that put a byte order mark at the start are understood."""
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodel: m\n")
    assert load_profile(str(path)).profile.model == "m"


def test_text_that_only_looks_like_a_number_stays_text(load):
    """Clock times, dates and leading zeros are not turned into numbers as YAML 1.1 would."""
    loaded = load("model: m\nrevision: 0123456\nserved_model_name: [22:22, 2026-03-01, 1.2.3]")
    assert loaded.profile.revision == "0123456"
    assert loaded.profile.served_model_name == ["22:22", "2026-03-01", "1.2.3"]
