"""What a contract is: the tensors that a backend's clients send and get, and what they mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma_serve.engine.pieces import ChatPrompt, Piece, TextPrompt
from gemma_serve.errors import RequestError
from gemma_serve.triton.contracts.chat import CHAT_PARAMETERS
from gemma_serve.triton.tensors import Tensor, strings

# Triton's word for BYTES in a model configuration.
STRING = "BYTES"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output as the model configuration declares it; -1 is any size."""

    name: str
    datatype: str
    dims: tuple[int, ...] = (1,)
    optional: bool = True


@dataclass(frozen=True)
class Call:
    """What a request asks for, in the engine's words."""

    prompts: tuple[TextPrompt | ChatPrompt, ...]
    sampling: Mapping[str, Any]
    stream: bool
    max_total_tokens: int | None = None  # prompt and answer
    strips: bool = False  # the answer's outer white space
    prepends_prompt: bool = False
    adapter: str | None = None
    wants: frozenset[str] = frozenset()  # outputs beyond the text


class Contract(ABC):
    """
    One backend's tensors.

    `read` makes a call of a request's inputs; `write` makes outputs of what the engine gives.
    """

    name: str
    backend: str
    max_batch_size: int = 0
    decoupled: bool
    # Where a request may have several responses: whether each of several answers is one.
    splits_answers: bool = False
    # Inputs that say the same thing: one that is sent silences the profile's default of another.
    rivals: tuple[frozenset[str], ...] = ()
    # The request parameters that it reads; the rest has no effect. None: it reads all.
    parameters: frozenset[str] | None = frozenset(CHAT_PARAMETERS)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def defaults(
        self,
        values: Mapping[str, Tensor],
        sent: Mapping[str, Tensor],
        parameters: Mapping[str, Any],  # noqa: ARG002  # a backend's own may count
    ) -> dict[str, Tensor]:
        """
        Those of the profile's values that no word of the request's stands against.

        Args:
            values: The profile's `triton.default_inputs`.
            sent: The request's tensors.
            parameters: The request's parameters, without those of the protocol itself.
        """
        silenced = {name for rivals in self.rivals if rivals & sent.keys() for name in rivals}
        return {name: values[name] for name in values if name not in silenced}

    @abstractmethod
    def read(
        self,
        inputs: Inputs,
        parameters: Mapping[str, Any],
        generation_config: Mapping[str, Any],
    ) -> Call:
        """
        The call that a request makes.

        Args:
            inputs: The tensors, checked against `inputs`.
            parameters: The request's parameters, without those of the protocol itself.
            generation_config: What the checkpoint's generation_config.json says.

        Raises:
            RequestError: a value that the backend could not have served.
        """

    @abstractmethod
    def write(self, call: Call, texts: Sequence[str], pieces: Sequence[Piece]) -> list[Tensor]:
        """
        The outputs of one response.

        Args:
            texts: What `text_output` holds, one an answer.
            pieces: What the engine gave for them, one a prompt.
        """


def text_output(texts: Sequence[str]) -> Tensor:
    """The one output that all contracts share."""
    return strings("text_output", texts)


class Inputs:
    """A request's tensors by name, read as what the contract says they are."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def texts(self, name: str) -> list[str]:
        """All strings of a tensor; none where it was not sent."""
        tensor = self._tensors.get(name)
        return [_utf8(name, value) for value in tensor.values] if tensor else []

    def text(self, name: str) -> str | None:
        """The first string of a tensor."""
        return next(iter(self.texts(name)), None)

    def flag(self, name: str) -> bool | None:
        """A BOOL."""
        value = self._first(name)
        return None if value is None else bool(value)

    def integer(self, name: str) -> int | None:
        """An integer of any width."""
        value = self._first(name)
        return None if value is None else int(value)

    def number(self, name: str) -> float | None:
        """
        A finite float.

        Raises:
            RequestError: it is NaN or infinite, which only bytes can say.
        """
        value = self._first(name)
        if value is None:
            return None
        if value != value or value in (float("inf"), float("-inf")):
            raise RequestError(f"Input {name!r} is no finite number; send one.", param=name)
        return float(value)

    def _first(self, name: str) -> Any:
        tensor = self._tensors.get(name)
        return tensor.values[0] if tensor and tensor.values else None


def _utf8(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RequestError(
            f"Input {name!r} is not UTF-8 at byte {error.start}; send text in UTF-8.", param=name
        ) from None


def at_least(name: str, value: int | None, least: int) -> int | None:
    """
    The value, if it is large enough.

    Raises:
        RequestError: it is less.
    """
    if value is not None and value < least:
        raise RequestError(f"{name} is {value}; it must be at least {least}.", param=name)
    return value


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}
