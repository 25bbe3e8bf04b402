"""docs/triton.md: each section of promises names tests, and the files that it names are there."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT, code_spans

PAGE = ROOT / "docs" / "triton.md"
# A file stands without its folder, where that is tests/api/kserve.
TEST = re.compile(r"test_\w+(\.py)?|tests/[\w/.-]+")


def test_each_section_names_a_test() -> None:
    """No section, nor a contract, is without a test that holds some of it."""
    _, *parts = re.split(r"^(?=## |\*\*`)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(parts) > 7
    for part in parts:
        named = [code for code in re.findall(r"`([^`\n]+)`", part) if TEST.fullmatch(code)]
        assert named, f"{part.splitlines()[0]!r} names no test"


def test_named_files_are_there() -> None:
    """A file's name alone is one of tests/api/kserve."""
    named = [(line, code) for line, code in code_spans(PAGE) if re.fullmatch(r"test_\w+\.py", code)]
    assert named
    for line, code in named:
        where = ROOT / "tests" / "api" / "kserve" / code
        assert where.exists(), f"{PAGE.name}:{line}: there is no {code!r}"
