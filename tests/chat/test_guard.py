"""What users type stays text, at the level of token ids, and a prompt has one BOS."""

from __future__ import annotations

import json
import pydoc_data.topics
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from gemma_serve.chat.guard import Guard
from gemma_serve.errors import RequestError
from gemma_serve.gemma.embedded import settings as embedded
from gemma_serve.gemma.embedded import source, tokenizer, weights
from gemma_serve.gemma.tokens import ControlTokens, control_tokens, control_tokens_of
from tests.chat.attacks import ATTACKS, Attack, harmless
from tests.gemma.test_embedded_tokenizer import TEXTS as ANY_TEXTS
from tests.gemma.test_embedded_tokenizer import stdlib_sources
from tests.official_gemma3 import official_gemma3

TEXT_MODEL_VOCAB = 262_144
# Renders every string of a conversation, joined as tightly as a template may.
EVERYTHING = """{{ bos_token }}{%- for m in messages -%}
{{- "<start_of_turn>" + m.role + "\n" -}}
{%- if m.content is string -%}{{- m.content | trim -}}{%- else -%}
{%- for part in m.content -%}{{- part.text | trim -}}{%- endfor -%}{%- endif -%}
{{- m.name -}}{{- m.tool_calls | default([]) | tojson -}}{{- "<end_of_turn>\n" -}}
{%- endfor -%}{{- tools | default([], true) | tojson -}}"""
GEMMA_4_TOKENS = [
    *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "[multimodal]", "<unused0>", "<unused1>"),
    *("<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>"),
    *('<|"|>', "<|think|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>"),
    *("<|image>", "<image|>", "<|image|>", "<|audio>", "<audio|>", "<|audio|>", "<|video|>"),
]


@dataclass
class Kind:
    """A tokenizer, its guard, and the templates that its model may have."""

    tokenizer: Any
    guard: Guard
    tokens: ControlTokens
    templates: list[str]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def control_ids(self, ids: list[int]) -> list[int]:
        """Those of the ids that are control tokens."""
        control = set(self.tokens.ids.values())
        return [id_ for id_ in ids if id_ in control]

    def render(self, template: str, messages: Any, tools: Any) -> str:
        (text,), _ = render_jinja_template(
            conversations=[messages],
            tools=tools or None,
            chat_template=template,
            bos_token="<bos>",
            add_generation_prompt=True,
        )
        return text

    def prompt(self, template: str, messages: Any, tools: Any) -> tuple[str, list[int]]:
        """The text and the ids of a guarded conversation."""
        (messages, tools), mark = self.guard.protect((messages, tools))
        text = self.render(template, messages, tools)
        ids = self.guard.one_bos(self.guard.encode(text, mark, self.encode))
        return text.replace(mark, "") if mark else text, ids


def packaged(name: str) -> str:
    return (resources.files("gemma_serve") / f"chat/templates/{name}.jinja").read_text("utf-8")


def kind_of(tokenizer: Any, vocab_size: int, templates: list[str]) -> Kind:
    tokens = control_tokens_of(tokenizer)
    return Kind(tokenizer, Guard(tokens, vocab_size), tokens, templates)


@pytest.fixture(scope="session")
def embedded_kind(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    """The embedded model's tokenizer, without its weights."""
    directory = tmp_path_factory.mktemp("embedded_tokenizer")
    source.assemble(directory / "model.gguf")
    reader = weights.open_gguf(directory / "model.gguf")
    tokenizer.write(reader, directory / "tokenizer.json")
    for name, text in embedded.files().items():
        (directory / name).write_text(text, "utf-8")
    loaded = AutoTokenizer.from_pretrained(directory)
    return kind_of(
        loaded, TEXT_MODEL_VOCAB, [packaged("gemma3"), packaged("gemma3_tools"), EVERYTHING]
    )


@pytest.fixture(scope="session")
def official_kind(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    """Google's tokenizer beside a text model, which has no row for <image_soft_token>."""
    directory = official_gemma3(tmp_path_factory.getbasetemp())
    stock = json.loads((directory / "tokenizer_config.json").read_text())["chat_template"]
    return kind_of(AutoTokenizer.from_pretrained(directory), TEXT_MODEL_VOCAB, [stock, EVERYTHING])


@pytest.fixture(scope="session")
def gemma4_kind() -> Kind:
    """A tokenizer with Gemma 4's control tokens, trained on Python's documentation."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=[AddedToken(token, special=True) for token in GEMMA_4_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(pydoc_data.topics.topics.values(), trainer)
    loaded = PreTrainedTokenizerFast(tokenizer_object=trained, bos_token="<bos>")
    return kind_of(loaded, 2000, [packaged("gemma4"), packaged("gemma4_large")])


@pytest.fixture(scope="session")
def gemma4_fine_tune_kind(gemma4_kind: Kind) -> Kind:
    """The same, with a template that takes no thoughts out."""
    guard = Guard(gemma4_kind.tokens, 2000, spared=frozenset())
    return Kind(gemma4_kind.tokenizer, guard, gemma4_kind.tokens, [EVERYTHING])


@pytest.fixture(params=["embedded", "official", "gemma4", "gemma4_fine_tune"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.getfixturevalue(f"{request.param}_kind")
    return found


def small() -> Guard:
    """A guard of a few tokens, for what needs no tokenizer."""
    names = [
        "<bos>",
        "<pad>",
        "<end_of_turn>",
        "<|channel>",
        "<channel|>",
        "<start_of_image>",
        "<b>",
    ]
    added = {name: id_ for id_, name in enumerate(names)} | {"<late>": 100}
    return Guard(control_tokens(added, ()), vocab_size=50)


# --- the attack suite


def test_suite_is_large() -> None:
    """At least 60 different prompts attack."""
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 60


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_no_text_becomes_a_control_token(kind: Kind, attack: Attack) -> None:
    """The control ids are those of the template, there is one BOS, and the text is unchanged."""
    rendered = 0
    for template in kind.templates:
        if attack.needs_tools and "tools" not in template:
            continue
        before = deepcopy((attack.messages, attack.tools))
        text, ids = kind.prompt(template, attack.messages, attack.tools)
        assert (attack.messages, attack.tools) == before
        plain = kind.render(template, harmless(attack.messages), harmless(attack.tools))
        assert kind.control_ids(ids) == kind.control_ids(kind.encode(plain))
        assert ids.count(kind.tokens.bos_id) == 1
        assert text == kind.render(template, attack.messages, attack.tools)
        decoded = kind.tokenizer.decode(ids, skip_special_tokens=False)
        assert decoded == text.replace("\u2581", " ") or "\u2581" in text
        rendered += 1
    assert rendered


def test_suite_bites(kind: Kind) -> None:
    """Without the guard, most of the attacks get control tokens of their own."""
    template = kind.templates[0]
    forged = 0
    for attack in (attack for attack in ATTACKS if not attack.needs_tools):
        ids = kind.encode(kind.render(template, attack.messages, None))
        plain = kind.encode(kind.render(template, harmless(attack.messages), None))
        forged += kind.control_ids(ids) != kind.control_ids(plain)
    assert forged > 30


FRAGMENTS = st.sampled_from(
    [
        *("<", "end", "_of_", "turn", ">", "<|", "|>", "|", "bos", "[", "multimodal", "]"),
        *(" ", "\n", "x", '"', "tool", "_call", "<end_of_turn>", "<bos", "<|turn", "turn|>"),
        *("\ufdd0", "start_of_"),
    ]
)
STRINGS = st.lists(st.lists(FRAGMENTS, max_size=8).map("".join), max_size=6)


@settings(max_examples=400, deadline=None)
@given(strings=STRINGS, trims=st.booleans())
@pytest.mark.parametrize("name", ["embedded", "gemma4"])
def test_no_join_of_texts_becomes_a_control_token(
    request: pytest.FixtureRequest, name: str, strings: list[str], trims: bool
) -> None:
    """However a template joins what users typed, no control token arises, and no text is lost."""
    kind: Kind = request.getfixturevalue(f"{name}_kind")
    marked, mark = kind.guard.protect(strings)
    text = "".join(string.strip() if trims else string for string in marked)
    ids = kind.guard.encode(text, mark, kind.encode)
    assert kind.control_ids(ids) == []
    plain = "".join(string.strip() if trims else string for string in strings)
    assert kind.tokenizer.decode(ids) == plain


# --- ordinary text


def ordinary_texts() -> Iterator[str]:
    yield from pydoc_data.topics.topics.values()
    yield from stdlib_sources()
    yield from (text for text in ANY_TEXTS if "<start_of" not in text and "bos>" not in text)
    yield "<table><tr><td><b>1</b></td></tr></table><h1>[a](b)</h1><code>a<b>c</code></s><s>"
    yield "a < b > c, x[i] <= y[j], List[int], <T>, std::vector<std::pair<int, int>>, ["


def test_ordinary_text_gets_no_mark(kind: Kind) -> None:
    """Prose, HTML, code and every language reach the tokenizer as they are."""
    for text in ordinary_texts():
        marked, mark = kind.guard.protect(text)
        if text.endswith(("<", "[")):  # the next text might go on
            assert kind.guard.encode(marked, mark, kind.encode) == kind.encode(text)
        else:
            assert (marked, mark) == (text, None)


@pytest.mark.parametrize("ends", [("a <", "b> c"), ("x[", "0]"), ("<end", "> it"), ("<", "")])
def test_texts_that_only_might_join_are_not_split(kind: Kind, ends: tuple[str, str]) -> None:
    """A bracket at a text's end changes nothing where no control token follows from it."""
    marked, mark = kind.guard.protect(list(ends))
    assert kind.guard.encode("".join(marked), mark, kind.encode) == kind.encode("".join(ends))


def test_other_values_are_kept() -> None:
    """Numbers, booleans, bytes and objects pass through; what needs no mark is not copied."""
    value = {
        "n": 1,
        "f": 1.5,
        "t": True,
        "none": None,
        "raw": b"<bos>",
        "list": ["a", {"b": "<i>"}],
    }
    assert small().protect(value) == (value, None)
    assert small().protect(value)[0] is value
    marked, mark = small().protect(value | {1: "<bos>"})
    assert marked == value | {1: f"<{mark}bos>"}


def test_keys_and_tuples_are_marked() -> None:
    """The names of a tool's arguments are as much the user's as their values."""
    marked, mark = small().protect(({"<bos>": ["<end_of_turn>"]}, None))
    assert marked == ({f"<{mark}bos>": [f"<{mark}end_of_turn>"]}, None)


def test_tokens_that_the_model_lacks_are_broken() -> None:
    """A token of the tokenizer beyond the embedding would end the engine, whatever its name."""
    assert small().protect("<late> <b>") == ("<\ufdd0late> <b>", "\ufdd0")
    assert small().protect_raw("<late> <b>") == ("<\ufdd0late> <b>", "\ufdd0")


def test_thoughts_of_answers_are_left_to_the_template() -> None:
    """Gemma 4's template finds them by their text; in any other role they are broken."""
    thought = "<|channel>x<channel|>"
    messages = [{"role": "assistant", "content": thought}, {"role": "user", "content": thought}]
    (ours, theirs), mark = small().protect(messages)
    assert ours["content"] == thought
    assert theirs["content"] == f"<{mark}|channel>x<{mark}channel|>"
    strict = Guard(control_tokens({"<bos>": 0, "<|channel>": 1}, ()), 50, spared=frozenset())
    assert strict.protect(messages[:1])[0][0]["content"] == "<\ufdd0|channel>x<channel|>"


def test_a_mark_that_nobody_typed() -> None:
    """The mark is a noncharacter that no string has; where all are taken, it is a refusal."""
    assert small().protect(["<bos>", "\ufdd0", {"\ufdd1": ""}])[1] == "\ufdd2"
    taken = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    assert small().protect(taken) == (taken, None)
    with pytest.raises(RequestError) as caught:
        small().protect(taken + "<bos>")
    assert caught.value.message == (
        "The text holds every noncharacter from U+FDD0 to U+FDEF next to control tokens, which "
        "leaves nothing to mark those with; leave one of these characters out."
    )


def test_many_control_tokens_are_one_call(kind: Kind) -> None:
    """A prompt full of control tokens costs one call of the tokenizer, with the same ids."""
    calls: list[str] = []

    def encode(text: str) -> list[int]:
        calls.append(text)
        return kind.encode(text)

    marked, mark = kind.guard.protect("<bos>one two\n<end_of_turn> <unused1>" * 50)
    ids = kind.guard.encode(marked, mark, encode)
    assert len(calls) == 1
    assert mark is not None
    assert ids == [id_ for piece in marked.split(mark) for id_ in kind.encode(piece)]


# --- raw text


def test_raw_text_keeps_its_turns(kind: Kind) -> None:
    """In /v1/completions the client writes the turns, and they stay control tokens."""
    end = "<end_of_turn>" if "<end_of_turn>" in kind.tokens.ids else "<turn|>"
    text = f"<bos>Hi{end}\n<eos>"
    assert kind.guard.protect_raw(text) == (text, None)


@pytest.mark.parametrize("text", ["Hi", "<bos>Hi", "<bos><bos>Hi"])
def test_raw_text_has_one_bos(kind: Kind, text: str) -> None:
    """With, without or with two BOS: the ids begin with one, on either kind of tokenizer."""
    marked, mark = kind.guard.protect_raw(text)
    ids = kind.guard.one_bos(kind.guard.encode(marked, mark, kind.encode))
    assert ids == [kind.tokens.bos_id, *kind.encode("Hi")]


def test_raw_text_has_no_media_and_no_later_bos(kind: Kind) -> None:
    """A placeholder without its image kills or garbles the engine; a later BOS is text."""
    for name in kind.tokens.media:
        text = f"<bos>a<bos> {name}{name}<image_soft_token>"
        marked, mark = kind.guard.protect_raw(text)
        ids = kind.guard.encode(marked, mark, kind.encode)
        assert kind.control_ids(ids) == [kind.tokens.bos_id]
        assert kind.tokenizer.decode(ids) == text


# --- token ids


def test_bos_is_first_and_once() -> None:
    """A missing BOS is put first, a run of them becomes one, the other ids are as they were."""
    guard = small()
    assert guard.one_bos([]) == [0]
    assert guard.one_bos([2, 3]) == guard.one_bos([0, 2, 3]) == guard.one_bos([0, 0, 0, 2, 3])
    assert guard.one_bos([2, 3]) == [0, 2, 3]


def test_cut_prompt_keeps_its_end() -> None:
    """A BOS that was cut off takes the place of the first that is left, and nothing else moves."""
    assert small().bos_in_place([3, 4, 5]) == [0, 4, 5]
    assert small().bos_in_place([0, 4, 5]) == [0, 4, 5]
    assert small().bos_in_place([3]) == [0]


def test_model_without_bos_gets_none() -> None:
    """A model that is not Gemma may have no BOS."""
    guard = Guard(control_tokens({"<|im_end|>": 1}, (), bos=None), vocab_size=10)
    assert guard.one_bos([0, 1]) == guard.bos_in_place([0, 1]) == [0, 1]
    guard.check_ids([0, 1], param="prompt")


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ([0, 3, 50], "Token id 50 at position 2: the model knows ids 0 to 49 only."),
        ([-1], "Token id -1 at position 0: the model knows ids 0 to 49 only."),
        (
            [0, 0, 3, 0],
            "Token id 0 at position 3: it is the BOS, which may only begin a prompt; remove it.",
        ),
        (
            [5],
            "Token id 5 at position 0: it stands for media, which token ids can't bring; "
            "use a chat request.",
        ),
    ],
)
def test_ids_that_have_no_place_are_refused(ids: list[int], sentence: str) -> None:
    """Ids beyond the model, a later BOS and placeholders of images get 400 with the position."""
    with pytest.raises(RequestError) as caught:
        small().check_ids(ids, param="prompt")
    assert (caught.value.message, caught.value.param) == (sentence, "prompt")


def test_other_ids_pass() -> None:
    """Control ids are the client's own turns; an empty prompt is one too."""
    small().check_ids([0, 0, 3, 2, 49], param="prompt")
    small().check_ids([], param="prompt")


def test_ids_of_a_text_are_those_that_the_model_has() -> None:
    """A tokenizer with more words than the model has rows is a 400, not the engine's end."""
    with pytest.raises(RequestError, match=r"^The text becomes token id 50, but the model knows"):
        small().encode("word", None, lambda _: [1, 50])
