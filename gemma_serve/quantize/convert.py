"""The shards, one after the other: each tensor read in slices, quantised or copied, and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open

from gemma_serve.quantize.layers import experts_tensor
from gemma_serve.quantize.partial import Partial, check_space, sha256_of
from gemma_serve.quantize.scheme import Scheme
from gemma_serve.quantize.shards import Matrix, Part, ShardWriter, Stored, file_bytes
from gemma_serve.quantize.source import Source


def planned_shards(source: Source, scheme: Scheme) -> dict[str, dict[str, Part]]:
    """
    File -> tensor -> type and shape of what it will hold.

    Raises:
        QuantizeError: The scheme can't take one of the weights.
    """
    return {shard: _planned(source, scheme, shard) for shard in source.shards}


def _planned(source: Source, scheme: Scheme, shard: str) -> dict[str, Part]:
    planned: dict[str, Part] = {}
    for name, part in source.shards[shard].items():
        matrices = _matrices(source, scheme, name, part)
        for matrix in matrices:
            planned |= scheme.parts(matrix.name, matrix.part)
        if not matrices:
            planned[name] = part
    return planned


def _matrices(source: Source, scheme: Scheme, name: str, part: Part) -> list[Matrix]:
    """The weights in a tensor that the scheme changes; none where it stays as it is."""
    if source.is_quantised(name):
        return [Matrix(name, part, name)]
    if experts_tensor(name) and scheme.splits_experts:
        return list(_experts(name, part))
    return []


def _experts(name: str, part: Part) -> Iterator[Matrix]:
    """
    The experts of a layer, each as three weights, as vLLM loads those that are quantised.

    Stored are gate_up_proj (experts, 2 x intermediate, hidden), the gates first, and down_proj
    (experts, hidden, intermediate).
    """
    layer, _, stored_as = name.rpartition(".")
    projections = ("gate_proj", "up_proj") if stored_as == "gate_up_proj" else ("down_proj",)
    experts, rows, columns = part.shape
    height = rows // len(projections)
    for expert in range(experts):
        for number, projection in enumerate(projections):
            weight = f"{layer}.{expert}.{projection}.weight"
            yield Matrix(weight, Part(part.dtype, (height, columns)), name, expert, number * height)


def convert(
    source: Source, scheme: Scheme, plan: Mapping[str, Mapping[str, Part]], partial: Partial
) -> dict[str, Any]:
    """
    Make every shard that is not finished yet; quantised weight -> what its scheme says of it.

    Raises:
        QuantizeError: A value can't be quantised, or the disk has no room for what is missing.
    """
    missing = [shard for shard in plan if shard not in partial.shards]
    for shard in missing:
        (partial.directory / shard).unlink(missing_ok=True)  # begun and not finished
    check_space(partial, sum(file_bytes(plan[shard]) for shard in missing))
    weights: dict[str, Any] = {}
    with _progress(source.num_bytes) as advance:
        for shard, planned in plan.items():
            file = source.directory / shard
            sha256 = sha256_of(file)
            known = partial.finished(shard, sha256)
            if known is None:
                (partial.directory / shard).unlink(missing_ok=True)
                check_space(partial, file_bytes(planned))  # others may write to this disk too
                found = _convert_shard(source, shard, scheme, planned, partial.directory, advance)
                partial.finish(shard, {"source_sha256": sha256, "weights": found})
                known = partial.shards[shard]
            else:
                advance(file.stat().st_size)
            weights |= known["weights"]
    return weights


def _convert_shard(
    source: Source,
    shard: str,
    scheme: Scheme,
    planned: Mapping[str, Part],
    directory: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with (
        safe_open(source.directory / shard, framework="pt") as opened,
        ShardWriter(directory / shard, planned) as writer,
    ):
        for name, part in source.shards[shard].items():
            matrices = _matrices(source, scheme, name, part)
            for matrix in matrices:
                found[matrix.name] = scheme.convert(Stored(matrix, opened, shard), writer.write)
            if not matrices:
                for row, rows in Stored(Matrix(name, part, name), opened, shard).slices():
                    writer.write(name, row, rows)
            advance(part.num_bytes)
    return found


@contextmanager
def _progress(num_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar over the source's bytes, where stderr is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("Quantising", total=num_bytes)
        yield lambda done: progress.advance(task, done)
