"""The report of `gemma-serve check`: every value with its origin and its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from gemma_serve.engine.args import Resolved, Setting
    from gemma_serve.engine.platform import Platform
    from gemma_serve.gemma.checkpoint import Checkpoint
    from gemma_serve.profile.load import LoadedProfile


def print_report(
    resolved: Resolved,
    loaded: LoadedProfile,
    checkpoint: Checkpoint,
    platform: Platform,
    console: Console,
) -> None:
    """Print what the server would be started with, for people."""
    for name, value in (
        ("profile", loaded.name),
        ("model", checkpoint.model),
        ("generation", checkpoint.generation.label if checkpoint.generation else "not Gemma"),
        ("config", f"from {checkpoint.config_source}"),
        ("platform", platform.label),
    ):
        console.print(Text.assemble((f"{name:<11}", "bold"), value))
    for title, settings in (
        ("Environment", resolved.env),
        ("Engine arguments", resolved.engine_args),
        ("Serving arguments", resolved.frontend_args),
    ):
        if settings:
            console.print()
            console.print(_table(title, settings))
    for note in resolved.notes:
        console.print(Text.assemble(("note: ", "yellow"), note))


def report_json(
    resolved: Resolved, loaded: LoadedProfile, checkpoint: Checkpoint, platform: Platform
) -> dict[str, Any]:
    """The same as one JSON object; its keys are stable."""
    return {
        "profile": loaded.name,
        "model": checkpoint.model,
        "generation": checkpoint.generation.value if checkpoint.generation else None,
        "config_source": checkpoint.config_source,
        "platform": {
            "kind": platform.kind,
            "name": platform.name,
            "simulated": platform.simulated,
            "compute_capability": list(platform.compute_capability or ()) or None,
            "device_count": None if platform.simulated else platform.device_count,
            "memory_gib": platform.memory_gib,
            "cores": None if platform.simulated else list(platform.cores),
        },
        "slo": loaded.profile.slo.model_dump(),
        "env": [setting.as_dict() for setting in resolved.env],
        "engine_args": [setting.as_dict() for setting in resolved.engine_args],
        "frontend_args": [setting.as_dict() for setting in resolved.frontend_args],
        "notes": list(resolved.notes),
    }


def _table(title: str, settings: Sequence[Setting]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("key", style="cyan", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("origin", style="dim", overflow="fold")
    table.add_column("reason", overflow="fold")
    for setting in settings:
        # Text, not str: brackets in a value are no markup.
        table.add_row(*(Text(str(cell)) for cell in setting.as_dict().values()))
    return table
