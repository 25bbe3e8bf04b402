"""A request's tensors against what the contract declares, before anything reads their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gemma_serve.errors import ProfileError, RequestError
from gemma_serve.triton.contracts.contract import Contract, TensorSpec
from gemma_serve.triton.tensors import Tensor, from_json

MAX_OUTPUTS = 16


def specs_of(contract: Contract) -> dict[str, TensorSpec]:
    """The contract's inputs by name."""
    return {spec.name: spec for spec in contract.inputs}


def default_tensors(contract: Contract, values: Mapping[str, Any]) -> dict[str, Tensor]:
    """
    The profile's `triton.default_inputs` as tensors.

    Raises:
        ProfileError: the contract has no optional input of a name, or a value does not fit it.
    """
    optional = {spec.name: spec for spec in contract.inputs if spec.optional}
    unknown = sorted(values.keys() - optional.keys())
    if unknown:
        raise ProfileError(
            f"triton.default_inputs has {unknown[0]!r}, which is no optional input of "
            f"{contract.name}; use {', '.join(optional)}."
        )
    try:
        return {name: tensor_of(contract, optional[name], values[name]) for name in values}
    except RequestError as error:
        raise ProfileError(f"triton.default_inputs: {error.message}") from None


def check_inputs(
    contract: Contract,
    tensors: Sequence[Tensor],
    defaults: Mapping[str, Tensor],
    parameters: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """
    The inputs by name, with the profile's values for those that were left out.

    Args:
        parameters: The request's, which may say what an input says.

    Raises:
        RequestError: an input is unknown, sent twice, missing, or of another datatype or shape.
    """
    specs = specs_of(contract)
    found: dict[str, Tensor] = {}
    for tensor in tensors:
        if tensor.name not in specs:
            raise _unknown("input", tensor.name, specs)
        if tensor.name in found:
            raise RequestError(
                f"Input {tensor.name!r} is there twice; send it once.", param=tensor.name
            )
        _check(contract, specs[tensor.name], tensor)
        found[tensor.name] = tensor
    if defaults:
        found = {**contract.defaults(defaults, found, parameters or {}), **found}
    for spec in contract.inputs:
        if not spec.optional and spec.name not in found:
            raise RequestError(
                f"Input {spec.name!r} is missing; send it as {spec.datatype}.", param=spec.name
            )
    return found


def check_outputs(contract: Contract, names: Sequence[str]) -> None:
    """
    Refuse outputs that the model does not have.

    Raises:
        RequestError: a name is unknown, or there are more than a request may ask for.
    """
    known = [spec.name for spec in contract.outputs]
    if len(names) > MAX_OUTPUTS:
        raise RequestError(
            f"The request asks for {len(names)} outputs; at most {MAX_OUTPUTS} are allowed.",
            param="outputs",
        )
    for name in names:
        if name not in known:
            raise _unknown("output", name, known)


def tensor_of(contract: Contract, spec: TensorSpec, value: Any) -> Tensor:
    """
    A JSON value, one or a list, as the tensor that the contract declares.

    Raises:
        RequestError: it does not fit the datatype.
    """
    data = value if isinstance(value, list) else [value]
    shape = (1, len(data)) if contract.max_batch_size else (len(data),)
    tensor = from_json(spec.name, spec.datatype, shape, data)
    _check(contract, spec, tensor)
    return tensor


def declared_shape(contract: Contract, spec: TensorSpec) -> list[int]:
    """The shape as metadata has it: with the batch dimension, if there is one."""
    return [-1, *spec.dims] if contract.max_batch_size else list(spec.dims)


def _check(contract: Contract, spec: TensorSpec, tensor: Tensor) -> None:
    if tensor.datatype != spec.datatype:
        raise RequestError(
            f"Input {spec.name!r} has the datatype {tensor.datatype} and the model takes "
            f"{spec.datatype}.",
            param=spec.name,
        )
    declared = declared_shape(contract, spec)
    batch = contract.max_batch_size
    fits = len(tensor.shape) == len(declared) and all(
        want in (-1, size) for want, size in zip(declared, tensor.shape, strict=True)
    )
    if not fits or (batch and tensor.shape[0] != batch):
        raise RequestError(
            f"Input {spec.name!r} has the shape {list(tensor.shape)} and the model takes "
            f"{[batch, *spec.dims] if batch else declared}.",
            param=spec.name,
        )


def _unknown(kind: str, name: str, known: Iterable[str]) -> RequestError:
    return RequestError(
        f"The model has no {kind} {name[:100]!r}; its {kind}s are {', '.join(known)}.",
        param=name[:100],
    )
