"""How a command gets the options of whole groups."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import typer

Option = typer.Option


def takes(**groups: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Give a command the options of whole groups: `@takes(load=LoadOptions)` fills `load`.

    typer reads a command's signature; this writes the groups' fields into it.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [
            parameter
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name not in groups
        ]
        hints = get_type_hints(command, include_extras=True)

        def run(**given: Any) -> Any:
            filled = {
                name: group(**{field.name: given.pop(field.name) for field in _fields(group)})
                for name, group in groups.items()
            }
            return command(**given, **filled)

        parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        for group in groups.values():
            group_hints = get_type_hints(group, include_extras=True)
            parameters += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=_default(field),
                    annotation=group_hints[field.name],
                )
                for field in _fields(group)
            ]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _fields(group: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(group)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
