"""What holds for every page: links lead somewhere, blocks say what they are, options exist."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from gemma_serve.engine.fields import installed_vllm
from gemma_serve.gemma.cache import cache_dir
from gemma_serve.profile.load import load_profile
from scripts import profile_reference
from tests.docs.command_lines import resolve
from tests.docs.pages import ROOT, all_pages, anchors, blocks, code_spans, links

PAGES = all_pages()
LANGUAGES = {"bash", "yaml", "json", "nginx", "python", "text"}


def test_these_are_the_pages() -> None:
    """The search for pages finds them: the README, the docs and those beside the code."""
    found = {str(page.relative_to(ROOT)) for page in PAGES}

    assert {"README.md", "llms.txt", "docs/profiles.md", "benchmarks/results/README.md"} <= found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file, and its anchor a heading of that file."""
    for line, link in links(page):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}:{line}: {link!r} leads to no file"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name}:{line}: {link!r} leads to no heading"


def test_every_page_of_docs_is_on_both_maps() -> None:
    """A reader of the README and a reader of llms.txt find each page of docs/."""
    for name in ("README.md", "llms.txt"):
        listed = {link.partition("#")[0] for _, link in links(ROOT / name)}
        for page in (ROOT / "docs").glob("*.md"):
            assert f"docs/{page.name}" in listed, f"{name} has no link to docs/{page.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_say_what_they_are(page: Path) -> None:
    """No command hides in a block without a language."""
    for block in blocks(page):
        assert block.language in LANGUAGES, (
            f"{page.name}:{block.line}: a block of language {block.language!r}; "
            f"write one of {', '.join(sorted(LANGUAGES))}"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_exist(page: Path) -> None:
    """What a sentence calls `gemma-serve COMMAND --option` is a command with that option."""
    for line, code in code_spans(page):
        words = code.split()
        if words[:1] != ["gemma-serve"] or len(words) < 2:
            continue
        command, rest = resolve(words)
        options = {name for option in command.params for name in option.opts}
        for word in rest:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, f"{page.name}:{line}: {code!r}"


def test_json_can_be_read() -> None:
    """Each JSON block is an object, or one a line."""
    for page in PAGES:
        for block in blocks(page):
            if block.language == "json":
                [json.loads(line) for line in _lines_of_json(block.text)]


def _lines_of_json(text: str) -> list[str]:
    try:
        json.loads(text)
    except ValueError:
        return text.splitlines()
    return [text]


def test_profiles_in_pages_load(tmp_path: Path) -> None:
    """Each YAML block is a profile, or a part of one, that the installed vLLM would take."""
    vllm = installed_vllm(cache_dir())
    assert vllm is not None
    found = 0
    for page in PAGES:
        for block in blocks(page):
            if block.language == "yaml":
                profile = tmp_path / f"{page.stem}-{block.line}.yaml"
                whole = {"model", "extends"} & set(yaml.safe_load(block.text))
                profile.write_text(block.text + ("" if whole else "\nextends: gemma-3-270m\n"))
                load_profile(str(profile), engine_fields=vllm.fields)
                found += 1
    assert found


def test_the_reference_of_profiles_is_fresh() -> None:
    """docs/profiles.md says what gemma_serve/profile/schema.py says."""
    page = profile_reference.PAGE.read_text(encoding="utf-8")

    assert page == profile_reference.generated(page), (
        f"docs/profiles.md is older than schema.py; run: {profile_reference.COMMAND}"
    )
