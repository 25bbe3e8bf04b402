"""
The tokens that mean something to Gemma's format: what opens, closes, stops and stands for media.

The names are looked up in the tokenizer at hand, so that a fine-tune with tokens of its own is
covered. Sources: the published tokenizer.json of Gemma 3, the attributes of transformers' Gemma 3n
and Gemma 4 processors, vLLM 0.32's parser/gemma4.py and tool_parsers/functiongemma_tool_parser.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_serve.gemma.family import Generation

BOS = "<bos>"
EOS = "<eos>"

# A turn that calls tools ends where their results begin. Gemma 4's generation_config.json says so;
# for FunctionGemma, its chat template does.
_TOOL_RESPONSE = {Generation.GEMMA_4: "<|tool_response>"}
_FUNCTION_RESPONSE = "<start_function_response>"

# Thoughts in an answer's history; Gemma 4's template finds them by their text and leaves them out.
THOUGHT_TOKENS = frozenset({"<|channel>", "<channel|>"})

_KIND = (
    "turn|image|audio|video|tool|function|think|thinking|thought|reasoning|channel|call|response|"
    "escape|system|user|assistant|model"
)
# Most are marked special as well; <unused0>, [multimodal] and a fine-tune's <think> need not be.
# The tags of HTML, which Gemma's vocabulary has too, are text.
_CONTROL = re.compile(
    rf"<(bos|eos|pad|unk|mask|2mass|unused\d+)>"
    rf"|\[@?[A-Za-z_/]+@?\]"
    rf"|<\|.*>|<.*\|>"
    rf"|</?(\w+_)?({_KIND})(_\w+)?>",
    re.DOTALL,
)
_MEDIA = re.compile(r"<\|?(\w+_)?(image|audio|video)(_\w+)?\|?>")

# The added tokens of Gemma 3 end after 1.0 MB of 33; what follows is the vocabulary.
_HEAD_BYTES = 2_000_000


@dataclass(frozen=True)
class ControlTokens:
    """The tokens of one tokenizer that no user's text may become."""

    ids: Mapping[str, int]
    bos: str | None  # None: prompts begin without one
    added: Mapping[str, int]  # all that the tokenizer searches a text for, tags of HTML among them

    @property
    def bos_id(self) -> int | None:
        """What every prompt begins with."""
        return None if self.bos is None else self.ids[self.bos]

    @property
    def media(self) -> Mapping[str, int]:
        """The tokens that stand for images, audio and video, or around them."""
        return {name: id_ for name, id_ in self.ids.items() if _MEDIA.fullmatch(name)}


def control_tokens(
    added: Mapping[str, int], special: Collection[str], bos: str | None = BOS
) -> ControlTokens:
    """
    Pick the control tokens out of a tokenizer's added tokens.

    Args:
        added: Every added token with its id.
        special: Those that are marked special, in which case the name does not matter.
        bos: The token that prompts begin with; it is left out where `added` lacks it.
    """
    ids = {
        name: id_
        for name, id_ in added.items()
        if _is_breakable(name) and (name in special or name == bos or _CONTROL.fullmatch(name))
    }
    return ControlTokens(ids, bos if bos in ids else None, added)


def control_tokens_of(tokenizer: Any) -> ControlTokens:
    """Find the control tokens of a tokenizer of transformers."""
    decoder = tokenizer.added_tokens_decoder
    added = {token.content: id_ for id_, token in decoder.items()}
    special = {token.content for token in decoder.values() if token.special}
    return control_tokens(added, special, BOS if BOS in added else tokenizer.bos_token)


def stop_token_ids(
    generation: Generation | None,
    vocab: Mapping[str, int],
    generation_config_eos: int | Iterable[int] | None,
) -> list[int]:
    """
    Every id that ends an answer: those of generation_config.json and those of the generation.

    Converted checkpoints often name <eos> alone, and would write the user's next turn too.
    """
    configured = generation_config_eos if generation_config_eos is not None else []
    ids = [configured] if isinstance(configured, int) else list(configured)
    ids += [vocab[name] for name in stop_tokens(generation) if name in vocab]
    return list(dict.fromkeys(ids))


def stop_tokens(generation: Generation | None) -> tuple[str, ...]:
    """The names of the tokens that end an answer; a tokenizer need not have them all."""
    if generation is None:
        return ()
    return (EOS, generation.end_of_turn, _TOOL_RESPONSE.get(generation, _FUNCTION_RESPONSE))


def read_added_tokens(file: Path) -> dict[str, int]:
    """
    Read the added tokens of a tokenizer.json, which come before its many megabytes of vocabulary.

    Raises:
        ValueError: it is not JSON.
        LookupError, TypeError: it is not a tokenizer's.
    """
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES).decode("utf-8", errors="ignore")
    found = re.match(r'[^\[]*?"added_tokens"\s*:\s*', head)
    try:
        tokens, _ = json.JSONDecoder().raw_decode(head, found.end() if found else len(head))
    except ValueError:  # another order of keys, or a longer list
        tokens = json.loads(file.read_text(encoding="utf-8"))["added_tokens"]
    return {token["content"]: token["id"] for token in tokens}


def _is_breakable(name: str) -> bool:
    """A run of spaces is text; and one character can't be broken in two."""
    return len(name) > 1 and bool(name.strip(" \t\r\n\u2581"))
