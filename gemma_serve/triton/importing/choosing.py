"""Which model of a repository is served, and which others belong to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from gemma_serve.errors import ProfileError
from gemma_serve.triton.contracts import CONTRACTS, Contract
from gemma_serve.triton.importing.tensors import TEXT_OUTPUT, contract_of, names_of
from gemma_serve.triton.repository import ModelDirectory, Repository, read_code, read_text

BACKENDS = "python, vllm, tensorrtllm or an ensemble of TensorRT-LLM"
# TensorRT-LLM's own names for the models inside its ensemble.
_PARTS = ("preprocessing", "tensorrt_llm", "postprocessing")
_ENGINE = "tensorrt_llm_model_name"
_TENSORRT_LLM = CONTRACTS["tensorrtllm"]


@dataclass(frozen=True)
class Chosen:
    """The model that is served, whose contract it keeps, and its place in the repository."""

    repository: Repository
    model: ModelDirectory
    contract: Contract
    parts: tuple[ModelDirectory, ...] = ()  # the models inside an ensemble
    aliases: tuple[ModelDirectory, ...] = ()  # those whose clients are answered by the same engine

    @property
    def others(self) -> list[str]:
        """The repository's other models, which are left behind."""
        mine = {each.name for each in (self.model, *self.parts, *self.aliases)}
        return [name for name in self.repository.names if name not in mine]


class ForeignError(ProfileError):
    """A model that gemma-serve can't stand in for."""


def choose(
    repository: Repository,
    name: str | None,
    looks_like_gemma: Callable[[Chosen], bool],
) -> Chosen:
    """
    The model that was asked for, or the only one that can be served.

    Args:
        looks_like_gemma: Tells several that could be served apart.

    Raises:
        ProfileError: there is no such model, none that can be served, or more than one.
    """
    if name is not None:
        return _classify(repository, _named(repository, name))
    candidates, refusals = _candidates(repository)
    if len(candidates) > 1:
        candidates = [each for each in candidates if looks_like_gemma(each)] or candidates
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(each.model.name for each in candidates)
        raise ProfileError(f"Several models could be served ({names}); choose one with --model.")
    if len(refusals) == 1:
        raise refusals[0]
    names = ", ".join(repository.names)
    raise ProfileError(
        f"None of the models {names} can be served ({BACKENDS} with text_input); name one with "
        "--model to see why."
    )


def _named(repository: Repository, name: str) -> ModelDirectory:
    if name in repository.broken:
        raise repository.broken[name]
    if name in repository.models:
        return repository.models[name]
    close = get_close_matches(name, repository.names, n=1)
    hint = f"the closest is {close[0]!r}" if close else f"use {', '.join(repository.names)}"
    raise ProfileError(f"The repository has no model {name!r}; {hint}.")


def _candidates(repository: Repository) -> tuple[list[Chosen], list[ProfileError]]:
    found: list[Chosen] = []
    refusals = list(repository.broken.values())
    for model in repository.models.values():
        try:
            found.append(_classify(repository, model))
        except ProfileError as error:
            refusals.append(error)
    # Of an ensemble and what is inside it or beside it, the ensemble comes first.
    found.sort(key=lambda each: not _is_ensemble(each.model))
    taken: set[str] = set()
    candidates = []
    for chosen in found:
        if chosen.model.name not in taken:
            candidates.append(chosen)
            taken |= {each.name for each in (*chosen.parts, *chosen.aliases)}
    return candidates, refusals


def _classify(repository: Repository, model: ModelDirectory) -> Chosen:
    """
    The contract that a model keeps, with what belongs to it.

    Raises:
        ForeignError: it is none of those that gemma-serve knows.
    """
    backend = model.backend
    names = names_of(model.config.input)
    if backend == "vllm":
        return Chosen(repository, model, CONTRACTS["vllm-backend"])
    if backend == "python":
        contract = contract_of(names) if names else _contract_of_code(model)
        if contract is None:
            takes = f"takes {', '.join(names)}" if names else "declares no inputs"
            raise _foreign(model, f"{takes} and has no text_input")
        outputs = names_of(model.config.output)
        if outputs and TEXT_OUTPUT not in outputs:
            raise _foreign(model, f"gives {', '.join(outputs)} and has no text_output")
        return _with_parts(repository, model, contract)
    if backend == "ensemble":
        if contract_of(names) is not _TENSORRT_LLM:
            steps = ", ".join(_steps(model)) or "nothing"
            raise _foreign(model, f"is an ensemble of {steps}, which is not TensorRT-LLM's")
        return _with_parts(repository, model, _TENSORRT_LLM)
    if backend == "tensorrtllm":
        raise _foreign(
            model, "takes token ids; name the model that takes text_input, such as ensemble"
        )
    said = f"has the backend {backend!r}" if backend else "names no backend"
    raise _foreign(model, f"{said}; gemma-serve takes the place of {BACKENDS}")


def _foreign(model: ModelDirectory, what: str) -> ForeignError:
    return ForeignError(f"The model {model.name!r} can't be imported: it {what}.")


def _contract_of_code(model: ModelDirectory) -> Contract | None:
    """Of a python backend that declares its tensors in model.py, by the strings in there."""
    if not model.has("model.py"):
        return None
    try:
        strings = read_code(read_text(model.file("model.py"))).strings
    except ProfileError:
        return None
    return contract_of(sorted(strings)) if TEXT_OUTPUT in strings else None


def _with_parts(repository: Repository, model: ModelDirectory, contract: Contract) -> Chosen:
    if contract is not _TENSORRT_LLM:
        return Chosen(repository, model, contract)
    parts = _inside(repository, model)
    engine = next((part.name for part in parts if takes_token_ids(part)), None)
    aliases = [
        other
        for other in repository.models.values()
        if other.name != model.name
        and other.backend in ("python", "ensemble")
        and contract_of(names_of(other.config.input)) is _TENSORRT_LLM
        and engine in [part.name for part in _inside(repository, other)]
    ]
    return Chosen(repository, model, contract, tuple(parts), tuple(aliases))


def takes_token_ids(model: ModelDirectory) -> bool:
    """Whether a model is the engine inside TensorRT-LLM's ensemble."""
    return "input_ids" in names_of(model.config.input)


def _inside(repository: Repository, model: ModelDirectory) -> list[ModelDirectory]:
    """The models that an ensemble chains, or that TensorRT-LLM's script calls."""
    names = _steps(model)
    if not _is_ensemble(model):
        said = model.config.parameters
        # To ask a protobuf map for a key that it lacks would write the key.
        named = said[_ENGINE].string_value if _ENGINE in said else ""
        names = [_PARTS[0], named or _PARTS[1], _PARTS[2]]
    return [repository.models[name] for name in names if name in repository.models]


def _is_ensemble(model: ModelDirectory) -> bool:
    return model.backend == "ensemble"


def _steps(model: ModelDirectory) -> list[str]:
    return [step.model_name for step in model.config.ensemble_scheduling.step]
