"""The JSON Schema that editors read."""

from __future__ import annotations

import json

import pytest
import yaml
from jsonschema import Draft202012Validator

from gemma_serve.profile.json_schema import SCHEMA_FILE, json_schema

REGENERATE = "run: gemma-serve schema > gemma_serve/profile/profile.schema.json"


def test_the_packaged_file_is_the_schema():
    """The file that editors read equals what the code says."""
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == json_schema(), REGENERATE


def test_it_is_a_valid_schema_with_a_description_for_each_section():
    """It is draft 2020-12, and every section says what it is."""
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert all(section["description"] for section in schema["$defs"].values())


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("model: m", True),
        ("extends: base.yaml", True),
        ("model: m\nserver:", True),
        ("model: m\nserver: {port: null}", True),
        ("dtype: fp8", False),
        ("model: m\nserver: {prt: 1}", False),
        ("model: m\ndtype: fp16", False),
    ],
)
def test_it_takes_what_the_loader_takes(text, valid):
    """A base may stand for the model, and null for any default."""
    assert Draft202012Validator(json_schema()).is_valid(yaml.safe_load(text)) is valid
