"""Whose tensors a model takes and gives, by what its configuration declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gemma_serve.triton.contracts import CONTRACTS, Contract, TensorSpec
from gemma_serve.triton.importing.findings import Draft, Setting

TEXT_INPUT, TEXT_OUTPUT = "text_input", "text_output"
_PYTHON, _VLLM, _TENSORRT_LLM = (
    CONTRACTS[name] for name in ("python-backend", "vllm-backend", "tensorrtllm")
)


def names_of(tensors: Iterable[Any]) -> list[str]:
    """The names of a configuration's inputs or outputs."""
    return [tensor.name for tensor in tensors]


def contract_of(input_names: Sequence[str]) -> Contract | None:
    """The contract whose inputs these are; None without `text_input`."""
    names = set(input_names)
    if TEXT_INPUT not in names:
        return None
    if "sampling_parameters" in names:
        return _VLLM
    # Each of the other contracts has its own word for the length of an answer.
    return _TENSORRT_LLM if "max_tokens" in names else _PYTHON


def import_tensors(
    draft: Draft, file: str, field: str, tensors: Sequence[Any], contract: Contract
) -> None:
    """Hold the inputs or the outputs of a configuration against the contract's."""
    specs = {spec.name: spec for spec in getattr(contract, f"{field}s")}
    as_declared = []
    for tensor in tensors:
        spec = specs.get(tensor.name)
        difference = _difference(tensor, spec) if spec else None
        if spec is None:
            draft.drop(_setting(file, field, tensor), _UNKNOWN[field](contract))
        elif difference:
            draft.change(_setting(file, field, tensor), difference)
        else:
            as_declared.append(tensor.name)
    if as_declared:
        setting = Setting(file, field, tuple(dict.fromkeys(as_declared)))
        draft.keep(setting, f"the contract {contract.name} has them")


def _setting(file: str, field: str, tensor: Any) -> Setting:
    return Setting(file, f"{field} {tensor.name}", f"{_datatype(tensor)} {list(tensor.dims)}")


_UNKNOWN: dict[str, Callable[[Contract], str]] = {
    "input": lambda contract: (
        f"{contract.name} has no such input: a request that sends it gets 400"
    ),
    "output": lambda contract: (
        f"{contract.name} has no such output: answers lack it, and asking for it gets 400"
    ),
}


def _difference(tensor: Any, spec: TensorSpec) -> str | None:
    datatype, dims = _datatype(tensor), list(tensor.dims)
    if datatype != spec.datatype:
        return f"here it is {spec.datatype}: clients that name another datatype get 400"
    fits = len(dims) == len(spec.dims) and all(
        ours in (-1, theirs) for ours, theirs in zip(spec.dims, dims, strict=True)
    )
    return None if fits else f"here its shape is {list(spec.dims)}: another one gets 400"


def _datatype(tensor: Any) -> str:
    """KServe's word for Triton's: TYPE_STRING is BYTES."""
    enum = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type
    name = enum.values_by_number[tensor.data_type].name.removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else str(name)
