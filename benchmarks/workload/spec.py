"""What can be asked of a workload: one model for each kind, and how it describes itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from benchmarks.records import Model
from benchmarks.workload.errors import WorkloadError
from benchmarks.workload.lengths import Lengths, Tokens

# text: a chat of one user message; text-completion: a plain prompt; ids: a prompt of token ids.
Style = Literal["text", "text-completion", "ids"]
Count = Annotated[int, Field(ge=1)]
STYLES: dict[Style, str] = {
    "text": "chat text",
    "text-completion": "prompt text",
    "ids": "token ids",
}


class WorkloadSpec(Model):
    """What every kind has."""

    kind: str

    def describe(self) -> str:
        """One line for the report."""
        raise NotImplementedError

    def counts_text(self) -> bool:
        """Whether lengths depend on how text is counted, by tokenizer or by words."""
        return True


class _Styled(WorkloadSpec):
    """
    Prompts of random text or ids.

    Ids are drawn from id_low up to id_high (not included); by default they are those of plain text
    in the vocabulary of any Gemma, and of models with 4000 tokens or more.
    """

    style: Style = "text"
    id_low: Annotated[int, Field(ge=0)] = 1000
    id_high: Annotated[int, Field(ge=1)] = 4000

    @model_validator(mode="after")
    def _ids_in_order(self) -> Self:
        if self.id_low >= self.id_high:
            raise ValueError(f"id_low={self.id_low} is not below id_high={self.id_high}")
        return self

    def counts_text(self) -> bool:
        """Ids are exact."""
        return self.style != "ids"


class Synthetic(_Styled):
    """Every prompt different, lengths by distribution."""

    kind: Literal["synthetic"] = "synthetic"
    input: Lengths
    output: Lengths

    def describe(self) -> str:
        """One line for the report."""
        return f"{STYLES[self.style]}; input {self.input.describe()}; {_output(self)}"


class Prefix(_Styled):
    """
    Groups of prompts that begin alike: `prefix_tokens` shared in the group, then its own suffix.

    Requests go through the groups in turn. Warm-up has prefixes of its own, unless warm_prefixes,
    which fills the cache with the measured ones.
    """

    kind: Literal["prefix"] = "prefix"
    num_groups: Count
    prefix_tokens: Count
    input: Lengths  # the suffix
    output: Lengths
    warm_prefixes: bool = False

    def describe(self) -> str:
        """One line for the report."""
        warmed = ", in the warm-up too" if self.warm_prefixes else ""
        return (
            f"{STYLES[self.style]}; {self.num_groups} prefixes of {self.prefix_tokens} tokens"
            f"{warmed}, then {self.input.describe()}; {_output(self)}"
        )


class MultiTurn(WorkloadSpec):
    """
    Conversations of `turns` turns each; a turn's history is what the server answered before.

    Without num_conversations there are as many as the number of requests takes, the last one cut.
    """

    kind: Literal["multi_turn"] = "multi_turn"
    num_conversations: Count | None = None
    turns: Count
    input: Lengths  # of each turn's new message
    first_input: Lengths | None = None  # of the first, where it differs: a document, say
    output: Lengths
    think_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def describe(self) -> str:
        """One line for the report."""
        first = f"{self.first_input.describe()} first, then " if self.first_input else ""
        return (
            f"conversations of {self.turns} turns, {self.think_s:g} s apart; "
            f"input {first}{self.input.describe()}; {_output(self)}"
        )


class Images(WorkloadSpec):
    """Generated PNG images as data: URLs, each different, then a text."""

    kind: Literal["images"] = "images"
    num_images: Count = 1
    width: Annotated[int, Field(ge=1, le=8192)] = 896
    height: Annotated[int, Field(ge=1, le=8192)] = 896
    input: Lengths  # the text alone
    output: Lengths

    def describe(self) -> str:
        """One line for the report."""
        return (
            f"{self.num_images} PNG of {self.width}x{self.height} a prompt; "
            f"text {self.input.describe()}; {_output(self)}"
        )


class File(WorkloadSpec):
    """
    Prompts of a file: our own workload.jsonl, chat bodies, prompts, or ShareGPT conversations.

    A request's length of output is `output` if given, else its own max_tokens, else the length of
    the recorded answer. With split_turns every question of a conversation is a turn; without, a
    chat body is one request with its history, and a ShareGPT conversation its first question.
    Requests longer than `max_model_len`, input and output together, are left out. Our own
    workload.jsonl is replayed as it is.
    """

    kind: Literal["file"] = "file"
    path: Path
    output: Lengths | None = None
    split_turns: bool = False
    think_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    shuffle: bool = False
    max_model_len: Tokens | None = None

    def describe(self) -> str:
        """One line for the report."""
        output = _output(self) if self.output else "output as recorded"
        order = "shuffled" if self.shuffle else "in the file's order"
        return f"{self.path.name}, {order}; {output}{_limit(self.max_model_len)}"


class Trace(_Styled):
    """
    A Mooncake trace: timestamp (ms), input_length, output_length, hash_ids, a line a request.

    Blocks of equal hash id have equal tokens, so that the trace's prefix-cache hits come again.
    With bos_id each prompt of ids begins with that token, which counts in its length.
    Source: the traces beside Mooncake's paper (FAST '25), blocks of 512 tokens.
    """

    kind: Literal["trace"] = "trace"
    path: Path
    style: Style = "ids"
    block_tokens: Count = 512
    bos_id: Annotated[int, Field(ge=0)] | None = None
    speedup: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    max_model_len: Tokens | None = None

    def describe(self) -> str:
        """One line for the report."""
        return (
            f"{self.path.name} at {self.speedup:g} times its speed; {STYLES[self.style]}, "
            f"blocks of {self.block_tokens} tokens{_limit(self.max_model_len)}"
        )


class Stored(WorkloadSpec):
    """Requests of our own workload.jsonl, sent as they are; `kind` is what they were made as."""

    path: Path

    def describe(self) -> str:
        """One line for the report."""
        return f"replay of {self.path.name}"

    def counts_text(self) -> bool:
        """Their lengths are what they are."""
        return False


def _output(spec: Any) -> str:
    return f"output {spec.output.describe()}"


def _limit(max_model_len: int | None) -> str:
    return f"; without those above {max_model_len} tokens" if max_model_len else ""


AnySpec = Synthetic | Prefix | MultiTurn | Images | File | Trace
_ADAPTER: TypeAdapter[AnySpec] = TypeAdapter(Annotated[AnySpec, Field(discriminator="kind")])


def parse_spec(fields: Mapping[str, Any]) -> AnySpec:
    """
    A spec from its fields, `kind` among them; lengths may be written as for parse_lengths.

    Raises:
        WorkloadError: the first thing that is wrong.
    """
    try:
        return _ADAPTER.validate_python(dict(fields))
    except ValidationError as error:
        raise WorkloadError(_sentence(error)) from error


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        kinds = "synthetic, prefix, multi_turn, images, file or trace"
        return f"workload kind {first['input'].get('kind')!r} is unknown; use {kinds}"
    kind, where = first["loc"][0], ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "missing":
        return f"a workload of kind {kind} needs {where}"
    if first["type"] == "extra_forbidden":
        return f"a workload of kind {kind} has no {where}"
    told = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"workload of kind {kind}: {where + ': ' if where else ''}{told}"
    return f"workload of kind {kind}: {where}={first['input']!r}: {told[:1].lower()}{told[1:]}"
