"""
`python -m tests.reliability`: all bad inputs against real servers of tiny models, with a record.

Example: python -m tests.reliability --mutations 2000 --out reliability.json
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.machine import conditions
from tests.api.kserve.refusals import Witness
from tests.conftest import KEY, TINY
from tests.faults.run import faults_named, inject
from tests.reliability import (
    bodies,
    described,
    fields,
    grammars,
    images,
    mutations,
    names,
    prompts,
    sizes,
    soak,
    streams,
    wires,
)
from tests.reliability.case import Case
from tests.reliability.sending import MAX_LARGE_GROWTH_MIB, Tally, send_all
from tests.reliability.subset import HAND_MADE, LEAST_HAND_MADE
from tests.servers import Server, serving
from tests.tiny_gemma import make_tiny_gemma
from tests.tiny_gemma_vision import make_tiny_gemma_vision

# As the tests' shared server has them; class E's promise is of two seconds for a compilation.
PLAIN = (
    *("chat.tool_call_parser=pythonic", "limits.max_body_bytes=1000000", "server.grpc_port=0"),
    "limits.max_grammar_compile_s=2",
)
LOGGED = (*PLAIN, "observability.access_log=true")
Send = Callable[[Witness], Any]
Classes = dict[str, Send]


def _known_faults(wanted: str) -> str:
    try:
        faults_named(wanted or "all")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return wanted


def main(
    only: Annotated[str, typer.Option(help="Letters of the classes, such as D,J,L.")] = "",
    num_described: Annotated[int, typer.Option("--described", min=1, help="Of class K.")] = 8_000,
    num_mutations: Annotated[int, typer.Option("--mutations", min=1, help="Of class L.")] = 20_000,
    soak_minutes: Annotated[
        float,
        typer.Option("--soak", min=0, help="Soak so long instead: 60 tells, 5 is too noisy."),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the classes K and L, and of the soak.")] = 0,
    faults: Annotated[
        str,
        typer.Option(
            callback=_known_faults,
            help="Inject faults, instead of the classes: all, or some: F6,F10.",
        ),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write the record here.")] = None,
) -> None:
    """Send every class, show what became of it, and exit with 1 where a promise was broken."""
    console, began = Console(), datetime.now(UTC)
    wanted = {letter.strip() for letter in only.split(",") if letter.strip()}
    record: dict[str, Any] = {}
    about = {"started_at": began.isoformat(timespec="seconds"), "host": conditions(), "seed": seed}
    hand_made = 0
    with tempfile.TemporaryDirectory() as folder:
        if faults:
            for name, found in inject(faults_named(faults), Path(folder, "f"), console.print):
                record[name] = found
                _write(out, about | {"classes": record})
            wanted = {"no class"}
        plain = _profile(make_tiny_gemma(Path(folder, "tiny")))
        seeing = _profile(make_tiny_gemma_vision(Path(folder, "vision")), images_per_prompt=3)
        servers: list[tuple[Path, Sequence[str], Classes]] = [
            (plain, PLAIN, text_classes(num_described, num_mutations, seed)),
            (plain, (f"server.api_keys_file={_keys(folder)}",), KEYED),
            (seeing, (), VISION),
        ]
        if soak_minutes:
            soak_alone = partial(soak.run, minutes=soak_minutes, seed=seed, say=console.print)
            servers = [(plain, LOGGED, {"soak": soak_alone})]
        for profile, overrides, classes in servers:
            chosen = {n: send for n, send in classes.items() if not wanted or _is_in(n, wanted)}
            if not chosen:
                continue
            console.print(f"Starting a server for {', '.join(chosen)}")
            with _server(profile, overrides, Path(folder)) as server:
                for name, send in chosen.items():
                    record[name] = _tallied(_sent(server, send))
                    hand_made += record[name]["sent"] if name[0] in HAND_MADE else 0
                    console.print(f"{name}: {record[name]['sent']} sent")
    _show(record, console)
    console.print(f"Hand-made, classes A to J: {hand_made} sent")
    too_few = not (wanted or soak_minutes) and hand_made < LEAST_HAND_MADE
    _write(out, about | {"hand_made": hand_made, "classes": record})
    raise typer.Exit(too_few or any(found["faults"] for found in record.values()))


def _write(out: Path | None, record: dict[str, Any]) -> None:
    if out is not None:
        out.write_text(json.dumps(record, indent=2) + "\n")


def _is_in(name: str, wanted: set[str]) -> bool:
    return bool(wanted & {name[0], name.split()[0]})


def _of(cases: Callable[[], Iterable[Case]], **settings: Any) -> Send:
    return lambda witness: send_all(witness, cases(), **settings)


def text_classes(num_described: int, num_mutations: int, seed: int) -> Classes:
    """What a text model's server gets."""

    def send_fields(witness: Witness) -> Tally:
        document = witness.http.get("/openapi.json").json()
        return send_all(witness, fields.cases(document, witness.http.get("/v2/models/tiny").json()))

    def send_described(witness: Witness) -> Tally:
        document = witness.http.get("/openapi.json").json()
        return send_all(witness, described.cases(document, num_described, seed))

    def send_mutations(witness: Witness) -> Any:
        return mutations.send(witness, mutations.mutated(num_mutations, seed))

    return {
        "A wire": wires.send,
        "B bodies": _of(bodies.cases),
        "C fields": send_fields,
        "D sizes": _of(sizes.cases),
        "E structured outputs": grammars.send,
        "F templates, tools, roles": _of(prompts.cases),
        "I names": _of(names.bad_names),
        "J streams, Anthropic, KServe": _of(streams.cases),
        "K described": send_described,
        "L mutations": send_mutations,
    }


KEYED: Classes = {"H keys": _of(names.bad_keys)}
VISION: Classes = {
    "G1 images": _of(images.bad_files, max_growth_mib=MAX_LARGE_GROWTH_MIB),
    "G2 addresses": _of(images.bad_urls),
}


def _profile(model: Path, **keys: Any) -> Path:
    file = model.with_suffix(".yaml")
    file.write_text(yaml.safe_dump({"model": str(model), **TINY, **keys}))
    return file


def _keys(folder: str) -> Path:
    file = Path(folder, "keys")
    file.write_text(f"{KEY}\n")
    return file


@contextlib.contextmanager
def _server(profile: Path, overrides: Iterable[str], folder: Path) -> Iterator[Server]:
    log = folder / f"{time.time_ns()}.log"
    with serving(profile, list(overrides), log, dict(os.environ)) as server:
        if any("api_keys_file" in override for override in overrides):
            server.headers = {"x-api-key": KEY}
        yield server


def _sent(server: Server, send: Send) -> Any:
    """What came of a class, and whether it left the server as it was."""
    with contextlib.closing(Witness(server)) as witness:
        tally = send(witness)
        try:
            witness.check_unharmed()
        except AssertionError as error:
            tally.faults.append(str(error)[:500])
    return tally


def _tallied(tally: Any) -> dict[str, Any]:
    # dataclasses.asdict makes another Counter of a Counter, of its pairs.
    by_status = {str(status): n for status, n in sorted(tally.by_status.items(), key=str)}
    return asdict(tally) | {"by_status": by_status}


def _show(record: dict[str, Any], console: Console) -> None:
    table = Table("class", "sent", "answers", "faults", box=None, pad_edge=False)
    for name, found in record.items():
        answers = ", ".join(f"{count} x {status}" for status, count in found["by_status"].items())
        table.add_row(name, str(found["sent"]), answers, str(len(found["faults"])))
    console.print(table)
    for found in record.values():
        for fault in found["faults"][:20]:
            console.print(fault, style="red", markup=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
