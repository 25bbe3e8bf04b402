"""docs/behaviour.md: the tests that it names are there, and so are the series and the limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from gemma_serve import metrics
from gemma_serve.profile.schema import Limits
from tests.docs.pages import ROOT, all_pages, code_spans

PAGE = ROOT / "docs" / "behaviour.md"
TEST = re.compile(r"test_\w+(\.py)?|tests/[\w/.-]+")
# Behind a page of its own, which names its tests.
ELSEWHERE = {"KServe v2"}


def _tests_by_name() -> set[str]:
    """Every test function, and every test file without its ending."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    functions = (re.findall(r"def (test_\w+)\(", file.read_text("utf-8")) for file in files)
    return {file.stem for file in files} | {name for found in functions for name in found}


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_named_tests_are_there(page: Path) -> None:
    """Whatever a page calls a test is a file, a directory or a function of tests/."""
    known = _tests_by_name()
    for line, code in code_spans(page):
        if TEST.fullmatch(code):
            exists = code.removesuffix(".py") in known or (ROOT / code).exists()
            assert exists, f"{page.name}:{line}: {code!r} is no test"


def test_each_section_names_a_test() -> None:
    """No section of promises is without a test that holds some of it."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(sections) > 10
    for section in sections:
        title, _, text = section.partition("\n")
        named = [code for code in re.findall(r"`([^`\n]+)`", text) if TEST.fullmatch(code)]
        assert named or title in ELSEWHERE, f"'{title}' names no test"


def test_series_are_those_that_there_are() -> None:
    """The table of series has each one that we declare, by its type and labels, and no other."""
    declared = {}
    for series in vars(metrics).values():
        if isinstance(series, MetricWrapperBase):
            (described,) = series.describe()
            suffix = {"counter": "_total", "info": "_info"}.get(described.type, "")
            labels = "" if described.type == "info" else ", ".join(series._labelnames)
            declared[f"{described.name}{suffix}"] = (described.type, labels)
    assert declared

    told = {}
    for row in re.findall(r"^\| (`gemma_serve_.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE):
        names, kind, labels, _ = (cell.strip() for cell in row.split("|"))
        for name in re.findall(r"`(\w+)`", names):
            told[name] = (kind, "" if kind == "info" else labels)
    assert told == declared


def test_limits_are_those_of_profiles() -> None:
    """Each `limits.KEY` in a page is a key."""
    for page in all_pages():
        for line, code in code_spans(page):
            if (found := re.fullmatch(r"limits\.(\w+)", code)) and found[1] != "py":
                assert found[1] in Limits.model_fields, f"{page.name}:{line}: {code!r}"


def test_defaults_of_the_reference() -> None:
    """The limits that a server promises without a word of its profile."""
    limits = Limits().model_dump()
    said = {
        "max_connections": 2048,
        "max_header_bytes": 65_536,
        "max_headers": 100,
        "max_url_bytes": 8192,
        "header_timeout_s": 10,
        "body_timeout_s": 30,
        "min_body_bytes_per_s": 1024,
        "keep_alive_s": 75,
        "write_timeout_s": 60,
        "max_json_depth": 64,
        "max_json_nodes": 50_000,
        "max_wait_s": 30,
        "max_ttft_s": 120,
        "max_request_s": 600,
        "max_messages": 2048,
        "max_parts": 64,
        "max_tools": 128,
        "max_n": 128,
        "max_prompts": 128,
        "max_stop_strings": 4,
        "max_word_chars": 256,
        "max_stop_token_ids": 128,
        "max_biased_token_ids": 1024,
        "max_bad_words": 128,
        "max_schema_bytes": 65_536,
        "max_schema_depth": 32,
        "max_regex_chars": 4096,
        "drain_s": 30,
    }
    assert {key: limits[key] for key in said} == said
