"""
Writes the files of the checkpoint, step by step, and shows that it goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gemma_serve.gemma.embedded import settings, source, tokenizer, weights

# The wording that section 3.1 of the Gemma Terms of Use asks for.
TERMS_NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)
# The same section: modified files carry a notice of it.
MODIFICATION_NOTICE = (
    "gemma-serve changed these files: the weights were dequantised from Q4_K_M to bfloat16."
)


def write_checkpoint(directory: Path, say: Callable[[str], None]) -> None:
    """
    Fill an empty directory with what vLLM and transformers load.

    Raises:
        StartupError: The packaged GGUF file is not the one we pinned.
    """
    gguf_path = directory / source.GGUF_NAME
    with _step("Assembling and checking the GGUF file", say):
        source.assemble(gguf_path)
    with _step("Reading the GGUF file", say):
        reader = weights.open_gguf(gguf_path)
    with _step("Writing the tokenizer", say):
        tokenizer.write(reader, directory / "tokenizer.json")
    with _step("Dequantising the weights", say):
        weights.write(reader, directory / "model.safetensors")
    del reader  # it maps the file
    gguf_path.unlink()
    for name, text in settings.files().items():
        (directory / name).write_text(text, encoding="utf-8")
    notice = f"{TERMS_NOTICE}\n{MODIFICATION_NOTICE}\n"
    (directory / "NOTICE").write_text(notice, encoding="utf-8")
    shutil.copyfile(source.terms_path(), directory / "GEMMA_TERMS.html")


@contextmanager
def _step(text: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say what is being done; at a terminal, a clock runs beside it."""
    say(f"  {text}")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        progress.add_task(text, total=None)
        yield
