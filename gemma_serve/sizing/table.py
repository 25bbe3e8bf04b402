"""A plan in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gemma_serve.sizing.fit import FEW_REQUESTS
from gemma_serve.sizing.report import MODELLED, Report, gib


def print_plan(report: Report, console: Console) -> None:
    """Print memory by part, the KV cache, what fits, the bounds of speed, and what to change."""
    sizing = report.sizing
    deployment = sizing.deployment
    device = "CPU worker" if deployment.on_cpu else "GPU"
    devices = f"{deployment.num_workers} {device}{'s' * (deployment.num_workers > 1)}"
    for name, value in (
        ("profile", report.subject.loaded.name),
        ("model", report.subject.checkpoint.model),
        ("platform", sizing.platform.label),
        ("devices", f"{devices} a replica; every size below is of one"),
    ):
        console.print(Text.assemble((f"{name:<11}", "bold"), value))
    for table in (_memory(report), _kv_cache(report), _sizes(report), _roofline(report)):
        if table is not None:
            console.print()
            console.print(table)
    console.print()
    if report.roofline is None:
        unknown = f"the bandwidth and FLOP/s of {sizing.platform.name} are not known here"
        console.print(Text(f"no upper bounds of speed: {unknown}"))
    _verdict(report, console)


def _memory(report: Report) -> Table:
    table = _table("Memory", "part", "GiB", "how it is known")
    for part in report.parts():
        table.add_row(part.name, gib(part.num_bytes), part.how)
    table.add_section()
    table.add_row("device", gib(report.sizing.memory_bytes), "")
    table.add_row("vLLM may take", gib(report.sizing.usable_bytes), "")
    return table


def _kv_cache(report: Report) -> Table:
    sizing, deployment = report.sizing, report.sizing.deployment
    counted = "as vLLM counts"
    exact = counted if sizing.kv_cache_is_exact else f"{counted}, in modelled memory"
    table = _table("KV cache and concurrency", "what", "value", "how it is known")
    longest = deployment.max_model_len
    table.add_row("blocks", f"{sizing.num_blocks:,}", exact)
    table.add_row("size in tokens", f"{sizing.kv_cache_tokens:,}", exact)
    table.add_row(f"requests of {longest:,} tokens", f"{sizing.max_concurrency:.2f}", exact)
    needed = f"{gib(sizing.needed_kv_cache_bytes)} GiB"
    table.add_row(f"one request of {longest:,} tokens needs", needed, counted)
    padding = f"{deployment.kv_cache.padding_share:.1%}"
    table.add_row("padding of layer groups", padding, counted)
    table.add_row("longest context", f"{sizing.longest_context:,}", exact)
    lengths = f"{report.input_tokens:,} + {report.output_tokens:,}"
    limit = f"while they decode; at most max_num_seqs {deployment.max_num_seqs:,}"
    if report.request_tokens > longest:
        limit = f"longer than max_model_len {longest:,}"
    table.add_row(f"requests of {lengths} tokens", f"{report.concurrency:,}", limit)
    return table


def _sizes(report: Report) -> Table | None:
    if not report.sizes:
        return None
    title = f"By tensor_parallel_size ({MODELLED})"
    columns = ("GPUs", "weights GiB", "KV cache GiB", "KV tokens", "longest context", "requests")
    table = _table(title, *columns)
    for sizing in report.sizes:
        size = sizing.deployment.tensor_parallel_size
        mark = " *" if size == report.recommended_tensor_parallel_size else ""
        table.add_row(
            f"{sizing.deployment.num_workers}{mark}",
            gib(sizing.weights.device_bytes),
            gib(max(sizing.kv_cache_bytes, 0)),
            f"{sizing.kv_cache_tokens:,}" if sizing.fits else "does not fit",
            f"{sizing.longest_context:,}",
            f"{sizing.concurrency(report.request_tokens):,}",
        )
    return table


def _roofline(report: Report) -> Table | None:
    roofline = report.roofline
    if roofline is None:
        return None
    speed = roofline.speed
    fp8 = f", {speed.fp8_tflops:,.0f} in FP8" if speed.fp8_tflops else ""
    title = (
        f"Upper bounds of speed, from the datasheet's {speed.memory_gb_per_s:,.0f} GB/s and "
        f"{speed.bf16_tflops:,.0f} TFLOP/s in bf16{fp8}; not run on a GPU"
    )
    table = _table(title, "phase", "tokens/s", "bound by")
    for point in roofline.decode:
        phase = f"decode, batch {point.batch:,}, {roofline.context_tokens:,} tokens of context"
        table.add_row(phase, f"{point.tokens_per_s:,.0f}", point.bound_by)
    prefill = f"prefill of {report.input_tokens:,} tokens"
    table.add_row(prefill, f"{roofline.prefill_tokens_per_s:,.0f}", "arithmetic")
    return table


def _verdict(report: Report, console: Console) -> None:
    recommended = report.recommended_tensor_parallel_size
    if recommended is not None:
        why = f"the fewest that hold the context and {FEW_REQUESTS} such requests"
        line = f"tensor_parallel_size: {recommended} is recommended, {why}"
        console.print(Text.assemble(("* ", "green"), line))
    if report.not_counted:
        console.print(f"not counted: {', '.join(report.not_counted)}")
    if report.unfit is None:
        how = "" if report.sizing.kv_cache_is_exact else f" ({MODELLED})"
        console.print(Text.assemble(("fits", "bold green"), how))
        return
    console.print(Text.assemble(("does not fit: ", "bold red"), report.unfit))
    for change in report.changes:
        sizing = change.sizing
        effect = f"{gib(sizing.kv_cache_bytes)} GiB of KV cache, {sizing.kv_cache_tokens:,} tokens"
        console.print(Text.assemble((f"  {change}", "cyan"), f": {effect}"))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(columns[0], overflow="fold")
    for column in columns[1:]:
        is_number = column not in ("how it is known", "bound by")
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    return table
