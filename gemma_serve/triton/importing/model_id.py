"""Which checkpoint a model loads: from a parameter, from model.json, or from model.py's text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gemma_serve.errors import ProfileError
from gemma_serve.triton.importing.choosing import Chosen
from gemma_serve.triton.importing.findings import Draft, Outcome, Setting, shown
from gemma_serve.triton.repository import (
    CodeFacts,
    ModelDirectory,
    read_code,
    read_json,
    read_text,
)

# Keys of `parameters` that name a checkpoint, strongest first, in lower case. The first of the two
# last is TensorRT-LLM's; both are in its preprocessing model.
_PARAMETERS = (
    "model",
    "model_id",
    "model_name",
    "model_path",
    "model_dir",
    "hf_model",
    "hf_model_id",
    "huggingface_model",
    "huggingface_model_id",
    "pretrained_model_name_or_path",
    "checkpoint",
    "hf_model_path",
    "tokenizer_dir",
)
_TOKENIZER_DIR = "tokenizer_dir"
_LOCAL = ("/", "./", "../", "~")


@dataclass(frozen=True)
class Files:
    """What the files beside the configuration say: model.json, or model.py."""

    chosen: Chosen

    @property
    def model(self) -> ModelDirectory:
        """The model whose files these are."""
        return self.chosen.model

    @cached_property
    def engine_args(self) -> dict[str, object] | None:
        """
        The arguments in model.json; None where the model has none.

        Raises:
            ProfileError: it can't be read.
        """
        if self.model.backend != "vllm" and not self.model.has("model.json"):
            return None
        return read_json(self.model.file("model.json"))

    @property
    def engine_args_file(self) -> str:
        """Where they stand in the model directory."""
        return f"{self.model.version}/model.json"

    @property
    def code_file(self) -> str:
        """Where the code stands in the model directory."""
        return f"{self.model.version}/{self.code_name}"

    @property
    def code_name(self) -> str:
        """The name of the file with the code."""
        name = self.model.config.default_model_filename
        return name if name and "/" not in name else "model.py"

    @cached_property
    def code(self) -> Code:
        """What model.py loads; it need not be there, and need not be readable."""
        if self.model.backend != "python" or not self.model.has(self.code_name):
            return Code()
        try:
            return Code(read_code(read_text(self.model.file(self.code_name))))
        except ProfileError as error:
            return Code(trouble=error.mistakes[0].message)


@dataclass(frozen=True)
class Code:
    """What was found in a model.py, or why nothing could be."""

    facts: CodeFacts = field(default_factory=CodeFacts)
    trouble: str | None = None


def put_model(draft: Draft, files: Files, hf_model: str | None) -> None:
    """
    Write `model` into the draft.

    Args:
        hf_model: What the user says it is; wins over what the files say.

    Raises:
        ProfileError: the files name no checkpoint, or several.
    """
    tiers = [tier for tier in _tiers(files) if tier]
    if hf_model is not None:
        named = Setting("(command line)", "--hf-model", hf_model)
        for loser in (setting for tier in tiers for setting in tier):
            draft.drop(loser, "--hf-model says another")
    else:
        named = _only(files, tiers)
    outcome: Outcome = "kept" if named.name in ("model", "--hf-model") else "renamed"
    draft.must_put(named, ("model",), named.value, _reason(named), outcome)
    if outcome == "renamed":
        draft.comment(("model",), f"From {named.name} in {named.file}.")


def looks_like_gemma(chosen: Chosen) -> bool:
    """Whether any name that a model's files give to its checkpoint says Gemma."""
    try:
        tiers = list(_tiers(Files(chosen)))
    except ProfileError:
        return False
    return any("gemma" in str(each.value).lower() for tier in tiers for each in tier)


def _tiers(files: Files) -> Iterator[list[Setting]]:
    """What may name the checkpoint, in order of how surely it does."""
    args = files.engine_args
    if args is not None:
        yield [Setting(files.engine_args_file, "model", args["model"])] if "model" in args else []
    yield from _parameters(files.model, files.model.config_name or "config.pbtxt")
    yield from _code(files.code_file, files.code.facts)
    for part in files.chosen.parts:
        yield from _parameters(part, f"{part.name}/{part.config_name}")


def _parameters(model: ModelDirectory, file: str) -> Iterator[list[Setting]]:
    said = {
        key.lower(): (key, value.string_value) for key, value in model.config.parameters.items()
    }
    for name in _PARAMETERS:
        key, value = said.get(name, (name, ""))
        if value and not value.startswith("${"):
            yield [Setting(file, f"parameters {key}", value)]


def _code(file: str, facts: CodeFacts) -> Iterator[list[Setting]]:
    loads = [load for load in facts.loads if load.model and not load.is_adapter]
    for is_model in (True, False):
        if not is_model:
            yield [Setting(file, each.name, each.value) for each in facts.constants]
        yield [
            Setting(file, f"{load.owner} on line {load.line}", load.model)
            for load in loads
            if load.is_model is is_model
        ]


def _only(files: Files, tiers: Sequence[Sequence[Setting]]) -> Setting:
    """The first of the surest; there must be one, and no other beside it."""
    model, option = files.model, "--hf-model, for example --hf-model google/gemma-3-4b-it"
    if not tiers:
        looked = ", ".join(_looked_at(files))
        raise ProfileError(
            f"The files of {model.name!r} do not say which checkpoint it loads ({looked}); say it "
            f"with {option}."
        )
    values = list(dict.fromkeys(str(setting.value) for setting in tiers[0]))
    if len(values) > 1:
        named = ", ".join(shown("model", value) for value in values)
        raise ProfileError(
            f"{tiers[0][0].file} of {model.name!r} names several checkpoints ({named}); choose one "
            "with --hf-model."
        )
    return tiers[0][0]


def _looked_at(files: Files) -> Iterable[str]:
    if files.model.config_name:
        yield f"the parameters of {files.model.config_name}"
    if files.engine_args is not None:
        yield files.engine_args_file
    elif files.code.trouble:
        yield f"{files.code_file}: {files.code.trouble.rstrip('.')}"
    elif files.model.backend == "python":
        yield f"the strings of {files.code_file}"


def _reason(named: Setting) -> str:
    value = str(named.value)
    if named.name.endswith(_TOKENIZER_DIR):
        return (
            "it holds the tokenizer, and the weights only where it is the checkpoint; an engine of "
            "TensorRT can't be served, so --hf-model may have to name another"
        )
    if value.startswith(_LOCAL):
        return "a local directory: it must be there where gemma-serve runs"
    if "gemma" not in value.lower():
        return (
            "it does not look like Gemma: gemma-serve check refuses what is not, unless "
            "allow_other_models is true"
        )
    return "the checkpoint"
