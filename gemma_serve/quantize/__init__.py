"""
Offline conversion of a Gemma checkpoint to fewer bits, shard by shard.

`source` reads and checks what is to be converted, `schemes` says what each scheme makes of a
weight (`fp8`, `q4_0`, `calibrated`), `layers` which tensors that concerns, `shards` writes them,
`partial` keeps what is finished until all is, `card` and `profile` tell users what they have, and
`run` is the whole program.
"""

from __future__ import annotations

from importlib.util import find_spec

from gemma_serve.errors import QuantizeError

_PACKAGES = ("compressed_tensors", "safetensors", "torch", "transformers")


def require_packages() -> None:
    """
    Refuse to start without the libraries, all of which vLLM brings.

    Raises:
        QuantizeError: One is missing.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise QuantizeError(
            f"gemma-serve quantize needs {', '.join(missing)}; install gemma-serve[quantize], or "
            "vLLM with gemma-serve[cpu] or gemma-serve[gpu]."
        )
