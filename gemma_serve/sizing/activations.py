"""
What a device needs beside weights and KV cache: modelled by formula, measured by nobody yet.

vLLM measures this in a profiling run of `max_num_batched_tokens` tokens; without the device the
largest tensors of that run are counted instead. The constants are estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemma_serve.gemma.family import Generation

if TYPE_CHECKING:
    from gemma_serve.gemma.architecture import Checkpoint
    from gemma_serve.sizing.deployment import Deployment

_MIB = 2**20
# Logits of a batch in the model's dtype; these are for their copy in float32 and its softmax.
_SAMPLER_BYTES = 4 + 4
# Patches of one image, width and MLP of the encoder: SigLIP of Gemma 3; 4's by its largest size.
# Source: the vision configurations of transformers 5.19.
_ENCODERS = {Generation.GEMMA_3: (4096, 1152, 4304), Generation.GEMMA_4: (2520, 1152, 4304)}
_TOKENS_OF_IMAGE = {Generation.GEMMA_3: 256, Generation.GEMMA_4: 280}
# Each captured batch size has its graphs; their tensors share one pool. An estimate.
_GRAPH_BYTES_PER_LAYER = _MIB // 4
_GRAPH_SIZES = 35  # 1, 2, 4 and every 16th up to 512
# Source: VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE in vLLM 0.32 envs.py.
_FLASHINFER_WORKSPACE_BYTES = 394 * _MIB
_COMMUNICATION_BYTES = 512 * _MIB  # NCCL and the custom all-reduce, with more than one device


@dataclass(frozen=True)
class Activations:
    """Bytes on one device, by what they are for."""

    activations: int
    cuda_graphs: int
    workspaces: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.activations + self.cuda_graphs + self.workspaces


def activations_of(checkpoint: Checkpoint, deployment: Deployment) -> Activations:
    """
    The peak of a step with as many tokens as the scheduler allows.

    `activations = max(T * layer, S * vocab * sampler, images * patches * encoder)`, where T is
    max_num_batched_tokens, S is max_num_seqs, and `layer` counts residual, normed input and the
    larger of attention's and the MLP's intermediate values.
    """
    graphs = workspaces = 0
    if deployment.cuda_graphs:
        layers = -(-(checkpoint.num_hidden_layers or 0) // deployment.pipeline_parallel_size)
        graphs = _GRAPH_BYTES_PER_LAYER * layers * _GRAPH_SIZES
    if not deployment.on_cpu:
        if deployment.attention_backend == "FLASHINFER":
            workspaces += _FLASHINFER_WORKSPACE_BYTES
        if deployment.num_workers > 1:
            workspaces += _COMMUNICATION_BYTES
    steps = (
        deployment.max_num_batched_tokens * _layer_bytes(checkpoint, deployment),
        _sampler_bytes(checkpoint, deployment),
        _encoder_bytes(checkpoint, deployment),
    )
    return Activations(max(steps), graphs, workspaces)


def _layer_bytes(checkpoint: Checkpoint, deployment: Deployment) -> int:
    """Of one token: residual and normed input, and what lies between the matrices of a layer."""
    text, size = checkpoint.text, deployment.tensor_parallel_size
    hidden, ffn = int(text["hidden_size"]), text["intermediate_size"]
    ffn = max(ffn) if isinstance(ffn, list) else int(ffn)
    heads = int(text["num_attention_heads"]) + 2 * (checkpoint.num_key_value_heads or 1)
    attention = (heads + int(text["num_attention_heads"])) * max(checkpoint.head_dims)
    mlp = 3 * ffn  # gate and up, and their product
    return deployment.dtype_bytes * (2 * hidden + max(attention, mlp) // size)


def _sampler_bytes(checkpoint: Checkpoint, deployment: Deployment) -> int:
    seqs = min(deployment.max_num_seqs, deployment.max_num_batched_tokens)
    return seqs * int(checkpoint.text["vocab_size"]) * (deployment.dtype_bytes + _SAMPLER_BYTES)


def _encoder_bytes(checkpoint: Checkpoint, deployment: Deployment) -> int:
    """Of as many images as fill one step, through the encoder at once."""
    generation = checkpoint.generation
    if generation not in _ENCODERS or not checkpoint.is_multimodal or deployment.text_only:
        return 0
    patches, hidden, ffn = _ENCODERS[generation]
    images = max(deployment.max_num_batched_tokens // _TOKENS_OF_IMAGE[generation], 1)
    return images * patches * (4 * hidden + ffn) * deployment.dtype_bytes
