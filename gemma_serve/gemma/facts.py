"""The packaged facts about checkpoints (`facts.yaml`), nearly all Google's own, by their id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml


@dataclass(frozen=True)
class Facts:
    """What is known of a checkpoint without having it."""

    model: str
    config: Mapping[str, Any]  # shaped as its config.json
    weight_bytes: int  # as stored
    has_chat_template: bool
    added_tokens: Mapping[str, int]  # of its tokenizer, as far as the family needs them


def facts_for(model: str) -> Facts | None:
    """The facts of an id as on the Hub, in any case; None where nothing is known of it."""
    return _by_id().get(model.lower())


def known_ids() -> tuple[str, ...]:
    """Every id that the facts know."""
    return tuple(facts.model for facts in _by_id().values())


@cache
def _by_id() -> dict[str, Facts]:
    text = resources.files(__package__).joinpath("facts.yaml").read_text(encoding="utf-8")
    sizes: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return {facts.model.lower(): facts for size in sizes.values() for facts in _facts(size)}


def _facts(size: Mapping[str, Any]) -> Iterator[Facts]:
    for key, has_chat_template in (("without_chat_template", False), ("with_chat_template", True)):
        for model in size.get(key, ()):
            yield Facts(
                model=model,
                config=size["config"],
                weight_bytes=round(size["weight_gib"] * 2**30),
                has_chat_template=has_chat_template,
                added_tokens=size.get("added_tokens", {}),
            )
