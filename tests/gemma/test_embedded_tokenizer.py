"""The embedded model's tokenizer is the published one, but for a token that the model lacks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tests.gemma.conftest import Built
from tests.official_gemma3 import official_gemma3

# Its id is past the embedding of a text model: see gemma_serve/gemma/embedded/tokenizer.py.
IMAGE_SOFT_TOKEN = "<image_soft_token>"
BOS = 2

TEXTS = [
    "",
    " ",
    "Hello, world!",
    " leading and trailing ",
    *(space * count for space in (" ", "\n", "\t", "\r\n", "\u00a0") for count in range(1, 40)),
    *(f"a{' ' * count}b" for count in range(1, 40)),
    "def f(x):\n    if x:\n\t\treturn  x\n",
    "Grüße aus Österreich; où ça? ¡Aquí! İstanbul",
    "Привет, мир. Η Αθήνα. 日本語の文章。中文。한국어 문장. العربية. हिन्दी पाठ. ไทย",  # noqa: RUF001
    "e\u0301 is not é; ﬁ ligature; \u200bzero width\u200d; \ufeffmark; \u2581 itself",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇦🇹 🙂🙂🙂 \U0001f9ff",
    "\x00\x01\x7f\x85 control \ud7ff \ue000 \uffff \U0010ffff",
    "3.14159 1,000,000 2024-05-06 0xDEADBEEF 1e-9",
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "<bos><eos><pad><unk><mask>[multimodal]<unused0><unused98>",
    "<start_of_image><end_of_image><table><tr><td></td></tr></table><h1></h1><unused6241>",
    "< start_of_turn > <start_of_turn <<bos>> <|turn> </s><s>",
    "https://example.org/a?b=c&d=%20#e",
    '{"key": [1, 2.5, null, true, "\\u00e9\\n"]}',
    "a" * 3000,
    "xyz " * 500,
]


def stdlib_sources() -> list[str]:
    """Every Python file of the packages json and asyncio."""
    folders = [Path(module.__file__).parent for module in (json, asyncio)]
    return [path.read_text("utf-8") for folder in folders for path in sorted(folder.glob("*.py"))]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official_gemma3(tmp_path_factory.getbasetemp())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_file_is_the_published_one(built: Built, official: Path) -> None:
    """Vocabulary, merges, normaliser, decoder and 6,414 added tokens; one token is left out."""
    ours = read_json(built.directory / "tokenizer.json")
    theirs = read_json(official / "tokenizer.json")
    assert theirs["added_tokens"].pop()["content"] == IMAGE_SOFT_TOKEN
    assert len(ours["added_tokens"]) == 6414
    assert {key for key in theirs if ours[key] != theirs[key]} == set()
    assert set(ours) == set(theirs)


def test_texts_have_the_published_ids(built: Built, official: Path) -> None:
    """Each text has the same ids, and the ids the same text, by either tokenizer."""
    ours = Tokenizer.from_file(str(built.directory / "tokenizer.json"))
    theirs = Tokenizer.from_file(str(official / "tokenizer.json"))
    sources = stdlib_sources()
    assert len(sources) > 30
    for text in (*TEXTS, *sources):
        ids = theirs.encode(text).ids
        assert ours.encode(text).ids == ids, text[:80]
        for skip in (True, False):
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(
                ids, skip_special_tokens=skip
            )


def test_transformers_loads_the_published_tokenizer(built: Built, official: Path) -> None:
    """Through AutoTokenizer, as vLLM loads it, texts and conversations have the same ids too."""
    ours = AutoTokenizer.from_pretrained(built.directory)
    theirs = AutoTokenizer.from_pretrained(official)
    for text in (*TEXTS, *stdlib_sources()):
        assert ours(text).input_ids == theirs(text).input_ids, text[:80]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Name a river.  "},
        {"role": "assistant", "content": "The Danube."},
        {"role": "user", "content": [{"type": "text", "text": "Another\n"}]},
    ]
    ids = [
        loaded.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        for loaded in (ours, theirs)
    ]
    assert ids[0] == ids[1]
    assert ids[0].count(BOS) == 1


def test_bos_is_added_once(built: Built) -> None:
    """Plain text gets one <bos>; a rendered conversation brings its own and gets no second."""
    tokenizer = AutoTokenizer.from_pretrained(built.directory)
    assert tokenizer("Hello").input_ids == [BOS, 9259]
    assert tokenizer("Hello", add_special_tokens=False).input_ids == [9259]


def test_named_tokens(built: Built) -> None:
    """The tokens that vLLM and transformers ask for by role, and no id beyond the embedding."""
    tokenizer = AutoTokenizer.from_pretrained(built.directory)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", 0)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<eos>", 1)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<bos>", 2)
    assert (tokenizer.unk_token, tokenizer.unk_token_id) == ("<unk>", 3)
    vocab_size = read_json(built.directory / "config.json")["vocab_size"]
    assert len(tokenizer) == max(tokenizer.get_vocab().values()) + 1 == vocab_size


def test_image_soft_token_is_plain_text(built: Built) -> None:
    """The one token that the model has no row for is read as letters; its id ends vLLM's engine."""
    tokenizer = Tokenizer.from_file(str(built.directory / "tokenizer.json"))
    ids = tokenizer.encode(f"a {IMAGE_SOFT_TOKEN} b").ids
    assert len(ids) > 4
    assert tokenizer.decode(ids) == f"a {IMAGE_SOFT_TOKEN} b"
