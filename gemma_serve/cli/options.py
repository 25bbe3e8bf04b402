"""What several commands take, and the profile and progress that they work with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gemma_serve.profile.load import LoadedProfile
    from gemma_serve.progress import Progress

DEFAULT_PROFILE = "gemma-3-270m"
ProfileArgument = Annotated[
    str, typer.Argument(help="A packaged profile's name, or the path of a YAML file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. --set server.port=9000."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def load(name_or_path: str, overrides: list[str] | None) -> LoadedProfile:
    """
    A profile with the command line's changes, checked against the installed vLLM.

    Raises:
        ProfileError: it can't be used; all mistakes at once.
    """
    from gemma_serve.engine.fields import installed_vllm
    from gemma_serve.gemma.cache import cache_dir
    from gemma_serve.profile.load import load_profile

    installed = installed_vllm(cache_dir(), progress().say)
    fields = installed.fields if installed else None
    return load_profile(name_or_path, overrides or [], engine_fields=fields)


def progress() -> Progress:
    """What the terminal shows meanwhile."""
    from gemma_serve.progress import Progress

    return Progress()
