"""`gemma-serve import-triton`: a Triton model repository becomes a profile, and a list of why."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gemma_serve.engine.fields import installed_vllm
from gemma_serve.errors import ProfileError
from gemma_serve.gemma.cache import cache_dir
from gemma_serve.profile.check import EngineFields
from gemma_serve.profile.load import load_profile
from gemma_serve.triton.importing import Finding, Imported, import_model, model_to_import
from gemma_serve.triton.repository import read_repository

_STYLES = {"kept": "green", "renamed": "green", "changed": "yellow", "dropped": "red"}


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    repository: Path
    model: str | None = None
    hf_model: str | None = None
    output: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class Written:
    """What was imported, and the file that it was written to."""

    imported: Imported
    output: Path


def import_triton(request: Request, say: Callable[[str], None]) -> Written:
    """
    Read a repository and write a profile of its model.

    Raises:
        ProfileError: the repository can't be read or served, or the profile can't be written.
    """
    chosen = model_to_import(read_repository(request.repository), request.model)
    fields = _engine_fields(say) if chosen.contract.name == "vllm-backend" else None
    imported = import_model(chosen, request.hf_model, fields)
    output = request.output or Path(f"{imported.model_name}.yaml")
    _check_loads(imported, fields)
    _write(output, imported.text, force=request.force)
    return Written(imported, output)


def _engine_fields(say: Callable[[str], None]) -> EngineFields | None:
    """What model.json's arguments are held against."""
    installed = installed_vllm(cache_dir(), say)
    return installed.fields if installed else None


def _check_loads(imported: Imported, fields: EngineFields | None) -> None:
    """
    Read the profile as `gemma-serve check` will; one that it would refuse is not written.

    Raises:
        ProfileError: it would be refused.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "imported.yaml"
        file.write_text(imported.text, encoding="utf-8")
        try:
            load_profile(str(file), engine_fields=fields)
        except ProfileError as error:
            first = error.mistakes[0].message
            raise ProfileError(
                f"No profile can be made of {imported.model_name!r}: {first}"
            ) from None


def _write(output: Path, text: str, *, force: bool) -> None:
    shown = str(output)
    if output.is_dir():
        raise ProfileError(f"--output {shown!r} is a directory; name a file in it.")
    try:
        if not force:
            with output.open("x", encoding="utf-8") as stream:
                stream.write(text)
            return
        unfinished = output.with_name(f".{output.name}.{os.getpid()}.tmp")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(output)
    except FileExistsError:
        raise ProfileError(
            f"{shown!r} is there already; name another file with --output, or replace it with "
            "--force."
        ) from None
    except OSError as error:
        raise ProfileError(
            f"The profile can't be written to {shown!r}: {error.strerror}."
        ) from None


def import_json(written: Written) -> dict[str, Any]:
    """What was written and found, for machines."""
    imported = written.imported
    return {
        "output": str(written.output),
        "profile": imported.profile,
        "findings": [asdict(finding) for finding in imported.findings],
    }


def _by_file(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """One table a file, those of the model first; a column for the file would be the widest."""
    tables: dict[str, list[Finding]] = {}
    for found in sorted(findings, key=lambda found: found.file.startswith("(")):
        tables.setdefault(found.file, []).append(found)
    return tables


def print_import(written: Written, console: Console) -> None:
    """Show the profile, what became of each setting, and what to do next."""
    imported = written.imported
    console.print(Text(imported.text), soft_wrap=True)
    for file, findings in _by_file(imported.findings).items():
        table = Table(title=Text(file), title_justify="left")
        for heading in ("setting", "became", "why"):
            table.add_column(heading, overflow="fold")
        for found in findings:
            table.add_row(
                Text(f"{found.setting}: {found.value}" if found.value else found.setting),
                Text(found.target or found.outcome, style=_STYLES[found.outcome]),
                Text(found.reason),
            )
        console.print(table)
    path = shlex.quote(str(written.output))
    line = f"Written to {path}. Next: gemma-serve check {path}, then gemma-serve serve {path}"
    console.print(Text(line), soft_wrap=True)
