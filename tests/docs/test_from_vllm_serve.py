"""docs/from-vllm-serve.md, held to vLLM's own argument parser and to the keys that there are."""

from __future__ import annotations

import importlib
import json
import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gemma_serve.cli import app
from gemma_serve.engine.fields import installed_vllm
from gemma_serve.gemma.cache import cache_dir
from gemma_serve.profile.json_schema import profile_schema
from gemma_serve.profile.keys import all_keys
from tests.docs.pages import ROOT, all_pages, blocks, commands

PAGE = ROOT / "docs" / "from-vllm-serve.md"
TEXT = PAGE.read_text(encoding="utf-8")
# A row of the table: flags, then the key that takes their place.
ROWS = re.findall(r"^\| (`--[^|]+) \| `([^`|]+)` \|", TEXT, re.MULTILINE)
FLAGS = re.compile(r"`(--[\w-]+)`")


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    """What reads the command line of `vllm serve`."""
    cli_args = importlib.import_module("vllm.entrypoints.launchers.cli_args")
    made: ArgumentParser = cli_args.create_parser_for_docs()
    return made


@pytest.fixture(scope="module")
def engine_fields() -> set[str]:
    """What may stand under `engine:`."""
    vllm = installed_vllm(cache_dir())
    assert vllm is not None
    return set(vllm.fields)


def test_the_table_names_flags_and_keys_that_exist(
    parser: ArgumentParser, engine_fields: set[str]
) -> None:
    """Each row leads from a flag of the installed vLLM to a key of a profile."""
    known = {flag for action in parser._actions for flag in action.option_strings}

    assert len(ROWS) > 30
    for flags, key in ROWS:
        for flag in FLAGS.findall(flags):
            assert flag in known, f"vllm serve has no {flag}"
        assert key in all_keys() or key.removeprefix("engine.") in engine_fields, key


def test_every_flag_has_a_place(parser: ArgumentParser, engine_fields: set[str]) -> None:
    """A flag is an engine argument, or the page says what became of it."""
    named = set(FLAGS.findall(TEXT))
    for action in parser._actions:
        if action.dest in engine_fields or "--help" in action.option_strings:
            continue
        long = [flag for flag in action.option_strings if flag.startswith("--")]
        assert not long or named & set(long), f"the page says nothing of {long[0]}"


def test_keys_of_vllms_own_name_are_in_the_table(engine_fields: set[str]) -> None:
    """An engine argument that is a key of a profile too does not belong under `engine:`."""
    keys = {key for _, key in ROWS}

    assert engine_fields & set(profile_schema()["properties"]) <= keys


def test_the_command_and_the_profile_say_the_same(parser: ArgumentParser, tmp_path: Path) -> None:
    """The profile of the page gives vLLM what the page's command line gives it."""
    [command] = [each for each in commands(PAGE) if each.words[0] == "vllm"]
    asked = vars(parser.parse_args(command.words[2:]))
    [profile] = [b.text for b in blocks(PAGE) if b.language == "yaml"]
    (tmp_path / "my-profile.yaml").write_text(profile)

    words = ["check", str(tmp_path / "my-profile.yaml"), "--gpu", "h100", "--json"]
    report = json.loads(CliRunner().invoke(app, words).stdout)
    given: dict[str, Any] = {each["key"]: each["value"] for each in report["engine_args"]}
    assert given["model"] == asked["model_tag"]
    for same in ("tensor_parallel_size", "max_model_len", "max_num_seqs", "limit_mm_per_prompt"):
        assert given[same] == asked[same]
    assert given["quantization"].startswith(asked["quantization"])
    assert yaml.safe_load(profile)["server"]["host"] == asked["host"]


def test_other_commands_of_vllm_parse(parser: ArgumentParser) -> None:
    """Whatever page shows a `vllm serve`, vLLM would take it."""
    for page in all_pages():
        for command in commands(page):
            if command.words[:2] == ["vllm", "serve"]:
                parser.parse_args(command.words[2:])
