"""
GGUF weights: how a profile names them, and what can be told of them without vLLM's plugin.

The forms are those of vllm-gguf-plugin 0.0.5: a file, `owner/name/file.gguf`, or a repository or
directory with the quantisation behind a colon (`unsloth/gemma-3-1b-it-GGUF:Q4_K_M`).
"""

from __future__ import annotations

import re
from pathlib import Path

from gemma_serve.errors import ModelError

_MAGIC = b"GGUF"
# The names that files on the Hub carry: Q4_K_M, IQ2_XS, UD-Q4_K_XL, BF16.
_QUANT_TYPE = re.compile(r"(?:[A-Za-z0-9+_]+-)*(?:I?Q[1-8]|TQ[12]|BF16|F16|F32|MXFP4)[A-Z0-9_]*")


def is_gguf(model: str) -> bool:
    """Whether a profile's `model` names GGUF weights."""
    place, colon, quant_type = model.rpartition(":")
    if colon and place and _QUANT_TYPE.fullmatch(quant_type):
        return True
    return model.endswith(".gguf")


def config_source(model: str) -> str:
    """
    Where the config.json of GGUF weights is looked for: beside them.

    Source: _get_gguf_config_source of vllm-gguf-plugin 0.0.5, plugin.py.
    """
    if model.endswith(".gguf"):
        return str(Path(model).parent)
    return model.rpartition(":")[0]


def local_file(model: str) -> Path | None:
    """
    The file that a model names, None where it is a repository or a directory.

    Raises:
        ModelError: There is no such file, or it is not GGUF.
    """
    file = Path(model).expanduser()
    on_the_hub = not file.exists() and model.count("/") == 2 and model[0] not in "./~"
    if not model.endswith(".gguf") or on_the_hub:
        return None
    if not file.is_file():
        raise ModelError(
            f"Model {model!r} does not exist; name a GGUF file, or a repository and a quantisation "
            "such as owner/name:Q4_K_M."
        )
    with file.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise ModelError(f"Model {model!r} is not a GGUF file; fetch it again.")
    return file
