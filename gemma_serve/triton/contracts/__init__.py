"""The three contracts: whose tensors the model takes and gives, chosen by `triton.contract`."""

from __future__ import annotations

from gemma_serve.triton.contracts.contract import Call, Contract, Inputs, TensorSpec
from gemma_serve.triton.contracts.python_backend import PythonBackend
from gemma_serve.triton.contracts.tensorrtllm import TensorrtLlm
from gemma_serve.triton.contracts.vllm_backend import VllmBackend

__all__ = ["CONTRACTS", "Call", "Contract", "Inputs", "TensorSpec"]

CONTRACTS: dict[str, Contract] = {
    contract.name: contract for contract in (PythonBackend(), VllmBackend(), TensorrtLlm())
}
