"""How the server is spoken to, and where the results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from benchmarks.cell import Settings
from benchmarks.metrics.goodput import parse_slo
from benchmarks.options.takes import Option
from benchmarks.options.values import cores, one_of
from benchmarks.records import Protocol, TritonContract

# Of OpenAI's protocols; Triton's leave no choice.
ChosenSource = Literal["token_ids", "continuous_usage", "usage", "events"]


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
    client_cpus: Annotated[
        str | None,
        Option(help="Cores of the client alone while it measures: 3, or 2,4-5. Default: all."),
    ] = None

    def settings(self, seed: int, *, keep_text: bool = False) -> Settings:
        """
        The settings of a cell.

        Raises:
            ValueError: a word that is none of those allowed.
        """
        protocol: Any = one_of("--protocol", self.protocol, Protocol)
        contract: Any = one_of("--triton-contract", self.triton_contract, TritonContract)
        source: Any = one_of("--token-source", self.token_source, ChosenSource)
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
            client_cpus=cores(self.client_cpus) if self.client_cpus else None,
        )


@dataclass(frozen=True)
class OutputOptions:
    """Where the results go."""

    out: Annotated[
        Path | None, Option(help="Directory of the results. Default: benchmarks/runs/<time>.")
    ] = None
    as_json: Annotated[bool, Option("--json", help="Print the record as JSON.")] = False
    report: Annotated[bool, Option("--report", help="Write report.html there too.")] = False
