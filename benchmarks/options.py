"""The options of the commands, each written once, in groups that commands take together."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer

from benchmarks.cell import Settings
from benchmarks.metrics.goodput import parse_slo
from benchmarks.records import Load, Protocol, TritonContract
from benchmarks.workload import (
    Workload,
    WorkloadError,
    is_stored,
    materialise,
    parse_spec,
    replay_stored,
)
from benchmarks.workload.spec import Trace
from benchmarks.workload.trace import check_is_trace, read_trace

Option = typer.Option
# What a file's fields are without any option of its own.
FILE_FIELDS = ("kind", "path", "output", "style")
# The first token of each prompt that the recorder saw, which a server adds where it is not there.
GEMMA_BOS = 2
# Of OpenAI's protocols; Triton's leave no choice.
ChosenSource = Literal["token_ids", "continuous_usage", "usage", "events"]


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


@dataclass(frozen=True)
class WorkloadOptions:
    """What is sent."""

    workload: Annotated[
        str,
        Option(
            help="synthetic, prefix, multi_turn, images, file, trace; or a file: one that the "
            "command workload or a run wrote, chat bodies, prompts, ShareGPT."
        ),
    ] = "synthetic"
    input: Annotated[
        str | None,
        Option(help="Prompt tokens: 128, 64-256, normal:200,50, lognormal:200,0.5. Default 128."),
    ] = None
    output: Annotated[
        str | None, Option(help="Answer tokens, written like --input. Default 64.")
    ] = None
    style: Annotated[
        str | None, Option(help="text (chat), text-completion, or ids (exact token ids).")
    ] = None
    set_: Annotated[
        list[str],
        Option("--set", metavar="KEY=VALUE", help="Any other key of the kind: num_groups=4."),
    ] = dataclasses.field(default_factory=list)
    requests: Annotated[
        int | None,
        Option(min=1, help="Measured requests. Default: 4 a client, at least 32; all of a file."),
    ] = None
    warm_up: Annotated[
        int | None,
        Option(min=0, help="Requests before them. Default: 2 a client; all of a stored workload."),
    ] = None
    seed: Annotated[int, Option(help="Of prompts, lengths and arrivals.")] = 0
    tokenizer: Annotated[
        Path | None, Option(help="A tokenizer.json, for text of an exact number of tokens.")
    ] = None

    def materialise(self, concurrency: int, seed: int | None = None) -> Workload:
        """
        The requests, before anything is sent.

        Raises:
            WorkloadError: something in the options is wrong.
        """
        fields = self._fields()
        recorded = fields["kind"] in ("file", "trace")
        if recorded:
            refuse({"--input": self.input}, "the prompts of a file are as long as they are")
        stored = Path(fields.get("path", ""))
        if fields["kind"] == "file" and is_stored(stored):
            return self._replayed(stored, fields)
        warm_up = 2 * concurrency if self.warm_up is None else self.warm_up
        requests = self.requests or (None if recorded else max(32, 4 * concurrency))
        seed = self.seed if seed is None else seed
        return materialise(parse_spec(fields), seed, requests, warm_up, self.tokenizer)

    def _replayed(self, stored: Path, fields: dict[str, Any]) -> Workload:
        """The bytes of a stored workload, or of its first requests."""
        refuse(
            {"--output": self.output, "--style": self.style, "--tokenizer": self.tokenizer}
            | {f"--set {key}": value for key, value in fields.items() if key not in FILE_FIELDS},
            f"{stored.name} holds requests that are sent as they are, or the first of them",
        )
        return replay_stored(stored, self.requests, self.warm_up)

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"kind": self.workload}
        if Path(self.workload).is_file():
            fields = {"kind": "file", "path": self.workload}
        if fields["kind"] not in ("file", "trace"):
            fields |= {"input": self.input or "128", "output": self.output or "64"}
        elif self.output:
            fields["output"] = self.output
        if self.style:
            fields["style"] = self.style
        for pair in self.set_:
            key, equals, value = pair.partition("=")
            if not equals:
                raise WorkloadError(f"--set {pair} is no KEY=VALUE; write --set num_groups=4")
            fields[key] = value
        return fields


@dataclass(frozen=True)
class LoadOptions:
    """How it is offered."""

    concurrency: Annotated[
        int | None, Option(min=1, help="Closed loop: this many clients. Default 8.")
    ] = None
    rate: Annotated[
        float | None, Option(min=0.001, help="Open loop: requests a second, by the clock.")
    ] = None
    arrivals: Annotated[
        str | None,
        Option(
            help="Of the open loop: poisson (the default), constant, gamma, or trace (its own "
            "times)."
        ),
    ] = None
    burstiness: Annotated[
        float | None,
        Option(
            min=0.01,
            help="Of gamma arrivals; less than 1 is burstier than poisson. Default 1.",
        ),
    ] = None
    max_concurrency: Annotated[
        int | None, Option(min=1, help="Cap of the open loop; what waits is recorded.")
    ] = None

    def load(self) -> Load:
        """
        The load that was asked for.

        Raises:
            WorkloadError: two kinds of load at once, unknown arrivals, or an option that would be
                ignored.
        """
        self._check_arrivals()
        if self.concurrency and (self.rate or self.arrivals == "trace"):
            raise WorkloadError(
                "--concurrency is a closed loop and --rate or --arrivals trace an open one; "
                "give one of them (--max-concurrency caps an open loop)"
            )
        if self.arrivals == "trace":
            refuse({"--rate": self.rate}, "--arrivals trace sends by the workload's own times")
            return Load(mode="trace", max_concurrency=self.max_concurrency)
        if self.rate:
            return self.at_rate(self.rate)
        self._check_closed("give a --rate with it, or leave it out")
        return self.at_concurrency(self.concurrency or 8)

    def check_sweep(self, *, open_loop: bool, by_list: bool) -> None:
        """
        Refuse what a sweep over clients, or over rates, does not have.

        Raises:
            WorkloadError: an option that would be ignored.
        """
        self._check_arrivals()
        if by_list:
            given = {"--concurrency": self.concurrency, "--rate": self.rate}
            refuse(given, "--levels says which loads are measured")
        if not open_loop:
            advice = "give --open with it, or leave it out"
            refuse({"--rate": self.rate}, "this sweep's levels are clients", advice)
            self._check_closed(advice)
            return
        given = {"--concurrency": self.concurrency}
        refuse(given, "with --open the levels are rates", "begin at a --rate, or leave it out")
        if self.arrivals == "trace":
            raise WorkloadError(
                "--arrivals trace has one load, that of its own times; use run, or give a sweep "
                "constant, poisson or gamma"
            )

    def _check_arrivals(self) -> None:
        if self.arrivals not in (None, "constant", "poisson", "gamma", "trace"):
            raise WorkloadError(
                f"--arrivals {self.arrivals} is unknown; use constant, poisson, gamma or trace"
            )
        if self.arrivals != "gamma":
            refuse({"--burstiness": self.burstiness}, "only --arrivals gamma has one")

    def _check_closed(self, advice: str) -> None:
        given = {"--arrivals": self.arrivals, "--max-concurrency": self.max_concurrency}
        refuse(given, "a closed loop has none", advice)

    def at_concurrency(self, concurrency: float) -> Load:
        """A closed loop."""
        return Load(mode="closed", concurrency=int(concurrency))

    def at_rate(self, rate_rps: float) -> Load:
        """An open loop."""
        arrivals: Any = self.arrivals or "poisson"
        return Load(
            mode="open",
            rate_rps=rate_rps,
            arrivals=arrivals,
            burstiness=(self.burstiness or 1.0) if arrivals == "gamma" else None,
            max_concurrency=self.max_concurrency,
        )

    def clients(self) -> int:
        """How many requests are open at once, about: what warm-up and counts go by."""
        return self.concurrency or self.max_concurrency or 8


@dataclass(frozen=True)
class ReplayOptions:
    """How a flight record is played: workload and load in one."""

    speed: Annotated[
        float, Option(min=0.001, help="2 sends the requests in half of their time.")
    ] = 1.0
    limit: Annotated[int | None, Option(min=1, help="At most so many, the first ones.")] = None
    warm_up: Annotated[
        int | None,
        Option(min=0, help="Requests of the first ones' shapes before them. Default: at most 4."),
    ] = None
    max_model_len: Annotated[
        int | None, Option(min=1, help="Leave out what is longer, prompt and answer together.")
    ] = None
    max_concurrency: Annotated[
        int | None, Option(min=1, help="Cap of open requests; what waits is recorded.")
    ] = None
    seed: Annotated[int, Option(help="Of the tokens that stand for the recorded ones.")] = 0

    def materialise(self, flight: Path) -> Workload:
        """
        The requests that the record is of: its times, lengths and shared beginnings.

        Raises:
            WorkloadError: the file is no flight record, or has nothing to play.
        """
        check_is_trace(flight)
        spec = Trace(
            path=flight, speedup=self.speed, max_model_len=self.max_model_len, bos_id=GEMMA_BOS
        )
        recorded = len(read_trace(spec))
        warm_up = min(4, recorded) if self.warm_up is None else self.warm_up
        return materialise(spec, self.seed, min(recorded, self.limit or recorded), warm_up)

    def load(self) -> Load:
        """At the record's own times."""
        return Load(mode="trace", max_concurrency=self.max_concurrency)


@dataclass(frozen=True)
class ServerOptions:
    """How the server is spoken to."""

    protocol: Annotated[
        str | None,
        Option(
            help="openai-chat, openai-completions, triton-generate or triton-grpc; of one target, "
            "behind it: URL,protocol=..."
        ),
    ] = None
    model: Annotated[str | None, Option(help="Its name there. Default: the first.")] = None
    triton_contract: Annotated[str, Option(help="python-backend, vllm-backend or tensorrtllm.")] = (
        "python-backend"
    )
    token_source: Annotated[
        str | None,
        Option(
            help="Of OpenAI's protocols: token_ids, continuous_usage or usage. Default: the best "
            "there is."
        ),
    ] = None
    slo: Annotated[
        str | None,
        Option(help="ttft_ms=200,tpot_ms=50,e2e_ms=...,max_stall_ms=..., or a preset: chat."),
    ] = None
    warm_cache: Annotated[
        bool, Option("--warm-cache", help="Let prompts share prefix-cache blocks.")
    ] = False
    natural_end: Annotated[
        bool, Option("--natural-end", help="Let answers end by themselves, before their length.")
    ] = False
    stall_s: Annotated[float, Option(help="No byte for this long is a failure.")] = 120.0
    timeout_s: Annotated[float, Option(help="An answer may take this long.")] = 600.0

    def settings(self, seed: int, *, keep_text: bool = False) -> Settings:
        """
        The settings of a cell.

        Raises:
            ValueError: a word that is none of those allowed.
        """
        protocol: Any = _one_of("--protocol", self.protocol, Protocol)
        contract: Any = _one_of("--triton-contract", self.triton_contract, TritonContract)
        source: Any = _one_of("--token-source", self.token_source, ChosenSource)
        return Settings(
            protocol=protocol,
            model=self.model,
            contract=contract,
            token_source=source,
            slo=parse_slo(self.slo) if self.slo else None,
            cold=not self.warm_cache,
            ignore_eos=not self.natural_end,
            stall_s=self.stall_s,
            timeout_s=self.timeout_s,
            seed=seed,
            keep_text=keep_text,
        )


def refuse(given: Mapping[str, Any], why: str, advice: str = "leave it out") -> None:
    """
    What was given and would be ignored is a mistake.

    Raises:
        WorkloadError: the first of these options that has a value.
    """
    for option, value in given.items():
        if value is not None:
            raise WorkloadError(f"{option} {value} was given, and {why}; {advice}")


def numbers(option: str, text: str, example: str, *, whole: bool = True) -> list[float]:
    """
    A list of numbers, each of them once.

    Raises:
        WorkloadError: it is none.
    """
    found = [_number(part.strip(), whole=whole) for part in text.split(",")]
    if any(one is None for one in found):
        kind = "whole numbers from 1 on" if whole else "numbers from 0.001 on"
        raise WorkloadError(f"{option} {text} is no list of {kind}; write it like {example}")
    listed = [one for one in found if one is not None]
    names = [f"{one:g}" for one in listed]  # as in the directories of what is measured
    for name in names:
        if names.count(name) > 1:
            raise WorkloadError(f"{option} {text} has {name} twice; give each number once")
    return listed


def _number(text: str, *, whole: bool) -> float | None:
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        return None
    # As little as --rate takes, and no infinity.
    return value if 0.001 <= value < float("inf") else None


def _one_of(option: str, value: str | None, literal: Any) -> str | None:
    allowed = get_args(literal)
    if value is not None and value not in allowed:
        raise ValueError(f"{option} {value} is unknown; use {', '.join(allowed)}")
    return value


@dataclass(frozen=True)
class OutputOptions:
    """Where the results go."""

    out: Annotated[
        Path | None, Option(help="Directory of the results. Default: benchmarks/runs/<time>.")
    ] = None
    as_json: Annotated[bool, Option("--json", help="Print the record as JSON.")] = False
    report: Annotated[bool, Option("--report", help="Write report.html there too.")] = False
