"""A Triton model repository, read from disk; nothing in it is run."""

from __future__ import annotations

from gemma_serve.triton.repository.code import CodeFacts, Load, read_code
from gemma_serve.triton.repository.files import read_json, read_text
from gemma_serve.triton.repository.models import ModelDirectory, Repository, read_repository

__all__ = [
    "CodeFacts",
    "Load",
    "ModelDirectory",
    "Repository",
    "read_code",
    "read_json",
    "read_repository",
    "read_text",
]
