"""`gemma-serve quality`: an engine without a server, scored on the corpus, and compared."""

from __future__ import annotations

import asyncio
import os
import platform as machine
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from gemma_serve import __version__
from gemma_serve.engine.failures import startup_error
from gemma_serve.engine.plugin import EVENTS_VARIABLE
from gemma_serve.engine.processes import (
    adopt_orphans,
    deaf_to_ctrl_c,
    end_children,
    quiet_children,
    shared_memory_below,
)
from gemma_serve.engine.timeline import Timeline, read_events
from gemma_serve.errors import QualityError
from gemma_serve.plan import Plan, check_planned, plan_serve
from gemma_serve.quality.compare import Comparison, compare, reference_windows
from gemma_serve.quality.corpus import corpus_sha256
from gemma_serve.quality.record import Record, read_record, write_record
from gemma_serve.quality.score import score, windows_of
from gemma_serve.quality.show import scoring_bar

if TYPE_CHECKING:
    from gemma_serve.engine.vllm import Engine
    from gemma_serve.gemma.architecture import Checkpoint
    from gemma_serve.profile.load import LoadedProfile
    from gemma_serve.progress import Progress

# What vLLM's processes get to end by themselves before they are killed.
ENGINE_EXIT_S = 2.0
POLL_S = 0.2


def record(
    loaded: LoadedProfile,
    output: Path,
    progress: Progress,
    *,
    max_tokens: int | None = None,
    force: bool = False,
) -> Record:
    """
    Score the corpus with a profile's model and keep what it says.

    Args:
        max_tokens: Take so many windows that at most this many tokens are scored; None takes all.

    Raises:
        GemmaServeError: the file exists, or the engine can't start, or can't score.
    """
    if output.exists() and not force:
        raise QualityError(
            f"{str(output)!r} exists; name another file, or replace it with --force."
        )
    if not output.absolute().parent.is_dir():
        raise QualityError(
            f"There is no directory {str(output.absolute().parent)!r}; make it first."
        )
    scored = score_profile(loaded, progress, max_tokens=max_tokens)
    write_record(scored, output)
    return scored


def compare_files(
    reference: Path, candidate: Path | LoadedProfile, progress: Progress
) -> Comparison:
    """
    A recorded reference against a record, or against a profile, whose engine is run for it.

    Raises:
        GemmaServeError: a file is no record, the texts or tokenizers differ, or the engine fails.
    """
    recorded = read_record(reference)
    if isinstance(candidate, Path):
        return compare(recorded, read_record(candidate))
    return compare(recorded, score_profile(candidate, progress, like=recorded))


def compare_profiles(
    reference: LoadedProfile,
    candidate: LoadedProfile,
    progress: Progress,
    *,
    max_tokens: int | None = None,
) -> Comparison:
    """
    One profile against another; runs the engines of both, one after the other.

    Args:
        max_tokens: As in `record`.

    Raises:
        GemmaServeError: an engine can't start or can't score, or the tokenizers differ.
    """
    scored = score_profile(reference, progress, max_tokens=max_tokens)
    return compare(scored, score_profile(candidate, progress, like=scored))


def check_can_run(
    source: LoadedProfile, result: LoadedProfile, made: Checkpoint, say: Callable[[str], None]
) -> None:
    """
    Refuse what `compare_profiles` could not start, before anything is made.

    Args:
        made: The checkpoint of `result`, which is not there yet.

    Raises:
        GemmaServeError: one of the two can't be served on this machine.
    """
    plan_serve(source, say)
    check_planned(result, made, say)


def score_profile(
    loaded: LoadedProfile,
    progress: Progress,
    *,
    like: Record | None = None,
    max_tokens: int | None = None,
) -> Record:
    """
    Start a profile's engine, score the corpus with it, and end it.

    Args:
        like: Score the windows of this record and no others.

    Raises:
        GemmaServeError: the engine can't start, or refuses or fails to score, or has another
            tokenizer than the one of `like`.
    """
    plan = plan_serve(loaded, progress.say)
    with _running_engine(plan, progress) as engine:
        return asyncio.run(_scored(engine, plan, like, max_tokens))


async def _scored(
    engine: Engine, plan: Plan, like: Record | None, max_tokens: int | None
) -> Record:
    windows = windows_of(engine)
    if like is not None:
        token_ids = reference_windows(like, windows)
    else:
        token_ids = windows.token_ids[: _num_windows(windows.token_ids, max_tokens)]
    with scoring_bar(len(token_ids)) as advance:
        scores = await score(engine, token_ids, advance)
    return Record(_about(engine, plan), windows.texts[: len(token_ids)], scores)


def _num_windows(token_ids: npt.NDArray[Any], max_tokens: int | None) -> int:
    num_windows, window_tokens = token_ids.shape
    if max_tokens is None:
        return int(num_windows)
    return max(max_tokens // int(window_tokens), 1)


def _about(engine: Engine, plan: Plan) -> dict[str, Any]:
    """What was scored, and with what."""
    profile, facts = plan.loaded.profile, engine.facts()
    return {
        "model": profile.model,
        "revision": profile.revision,
        "profile": plan.loaded.name,
        "dtype": profile.dtype,
        "quantization": facts["quantization"],
        "kv_cache_dtype": facts["kv_cache_dtype"],
        "activation_dtype": facts["dtype"],
        "vllm_version": facts["vllm_version"],
        "gemma_serve_version": __version__,
        "platform": plan.platform.kind,
        "machine": machine.machine(),
        "corpus_sha256": corpus_sha256(),
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@contextmanager
def _running_engine(plan: Plan, progress: Progress) -> Iterator[Engine]:
    """An engine for the length of a with block; none of its processes outlives it."""
    # SIGTERM ends as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    adopt_orphans()
    quiet_children()
    starting: Future[Engine] | None = None
    with tempfile.TemporaryDirectory(prefix="gemma-serve-") as folder:
        events = Path(folder, "events.jsonl")
        os.environ.update(plan.resolved.env_dict() | {EVENTS_VARIABLE: str(events)})
        # Standard output is the report's, which may be read by a machine.
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        try:
            with progress.doing("import"):
                # vLLM reads its environment when it is imported.
                from gemma_serve.engine import vllm
            with progress.doing("start"):
                pool = ThreadPoolExecutor(1, thread_name_prefix="start-engine")
                what = (plan.resolved.engine_kwargs(), Timeline(), plan.loaded.profile)
                start = partial(vllm.start, *what, plan.checkpoint)
                starting = pool.submit(deaf_to_ctrl_c, start)
                try:
                    engine = starting.result()
                except Exception as error:
                    raise startup_error(error, read_events(events)) from error
            yield engine
        finally:
            left = shared_memory_below()
            if starting is not None and starting.done() and starting.exception() is None:
                starting.result().shutdown(ENGINE_EXIT_S)
            end_children(ENGINE_EXIT_S)
            while starting is not None and not starting.done():
                end_children(POLL_S)
            for file in left:
                file.unlink(missing_ok=True)
