"""What is sent: a workload by its options, or a flight record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks.options.takes import Option
from benchmarks.options.values import refuse
from benchmarks.records import Load
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

# What a file's fields are without any option of its own.
FILE_FIELDS = ("kind", "path", "output", "style")
# The first token of each prompt that the recorder saw, which a server adds where it is not there.
GEMMA_BOS = 2


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
