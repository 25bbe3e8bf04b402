"""`gemma-serve tune` from the request to the written profile, and what the terminal shows of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gemma_serve.engine.fields import installed_vllm
from gemma_serve.errors import ProfileError
from gemma_serve.gemma.cache import cache_dir
from gemma_serve.plan import Plan, plan_check
from gemma_serve.profile.load import LoadedProfile, load_profile
from gemma_serve.progress import Progress as ServeProgress
from gemma_serve.tune import harness
from gemma_serve.tune.harness import Method, check_harness
from gemma_serve.tune.outcome import Compared
from gemma_serve.tune.search import Against, Doing, Found, Limits, Search, run
from gemma_serve.tune.space import Change, Demand, Permitted, changes_to_try, options, vllm_defaults
from gemma_serve.tune.state import FILE, State, Trial, read_state, write_state
from gemma_serve.tune.write import evidence_of, tuned_profile

_SLO_KEYS = ("ttft_ms", "itl_ms")
_STYLES = {"kept": "green", "measured": "bold", "failed": "red", "invalid": "yellow"}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    profile: str
    overrides: tuple[str, ...] = ()
    output: Path | None = None
    slo: str | None = None
    attainment: float = 0.9
    method: Method = field(default_factory=Method)
    limits: Limits = field(default_factory=Limits)
    permitted: Permitted = field(default_factory=Permitted)
    against: Against = "vllm"
    restart: bool = False
    force: bool = False

    @property
    def file(self) -> Path:
        """Where the profile is written."""
        return self.output or Path(f"{Path(self.profile).stem}-tuned.yaml")

    @property
    def directory(self) -> Path:
        """Where state and measurements are, beside the profile."""
        return self.file.with_suffix(".tune")


@dataclass(frozen=True)
class Prepared:
    """A request on this machine: the profile resolved, and what is to be tried."""

    request: Request
    loaded: LoadedProfile
    plan: Plan
    method: Method
    changes: tuple[Change, ...]

    @property
    def required_attainment(self) -> float | None:
        """Part of the requests that has to keep the SLO, None without one."""
        return self.request.attainment if self.method.slo else None


def against_of(word: str) -> Against:
    """What --against says."""
    allowed = get_args(Against)
    if word not in allowed:
        raise ProfileError(f"--against {word!r} is unknown; use {', '.join(allowed)}.")
    return cast(Against, word)


def run_tune(request: Request, *, dry_run: bool, as_json: bool, progress: ServeProgress) -> None:
    """The command: list the trials, or make them and show what they came to."""
    prepared = prepare(request, progress.say)
    out = Console()
    if dry_run:
        search = search_of(prepared, progress.say)
        if as_json:
            print(json.dumps(dry_run_json(prepared, search), indent=2))
        else:
            print_dry_run(prepared, search, out)
        return
    found = tune(prepared, progress.console, progress.say)
    if as_json:
        print(json.dumps(tuned_json(prepared, found), indent=2))
    else:
        print_tuned(prepared, found, out)


def prepare(request: Request, say: Say) -> Prepared:
    """
    Read and resolve the profile, and list what is worth trying.

    Raises:
        GemmaServeError: the profile or the SLO is wrong, or this machine can't serve it.
    """
    loaded = _load(request, {}, say)
    plan = plan_check(loaded, None, say)
    method = replace(request.method, slo=_slo(request, loaded))
    given = method.input or ""
    prompt = int(given) if given.isdigit() else None
    demand = Demand(method.concurrency, prompt, "itl_ms" in method.slo)
    changes = changes_to_try(plan, demand, _from_anywhere(request.permitted))
    return Prepared(request, loaded, plan, method, tuple(changes))


def _from_anywhere(permitted: Permitted) -> Permitted:
    """With the checkpoint's whole path: the profile is served from other directories too."""
    weights = permitted.fp8_weights
    if weights is None or not Path(weights).expanduser().is_dir():
        return permitted
    return replace(permitted, fp8_weights=str(Path(weights).expanduser().resolve()))


def _load(request: Request, keys: Mapping[str, Any], say: Say) -> LoadedProfile:
    installed = installed_vllm(cache_dir(), say)
    fields = installed.fields if installed else None
    return load_profile(request.profile, [*request.overrides, *options(keys)], engine_fields=fields)


def _slo(request: Request, loaded: LoadedProfile) -> dict[str, float]:
    """The limits in milliseconds: of --slo, else the profile's own."""
    if request.slo is None:
        return loaded.profile.slo.model_dump(exclude_none=True)
    limits: dict[str, float] = {}
    for part in request.slo.split(","):
        key, _, text = part.strip().partition("=")
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if key not in _SLO_KEYS or not 0 < value < float("inf"):
            raise ProfileError(
                f"--slo {request.slo!r} can't be read at {part.strip()!r}; write milliseconds, "
                "for example --slo ttft_ms=500,itl_ms=50."
            )
        limits[key] = value
    return limits


def search_of(prepared: Prepared, say: Say) -> Search:
    """The search, ready to run; nothing is measured yet."""
    request = prepared.request

    def check(keys: Mapping[str, Any]) -> None:
        plan_check(_load(request, keys, say), None, say)

    def compare(a: str, b: str, directory: Path, quality: bool) -> Compared:
        return harness.compare(a, b, directory, prepared.method, quality=quality)

    return Search(
        profile=request.profile,
        overrides=request.overrides,
        changes=prepared.changes,
        method=prepared.method,
        limits=request.limits,
        directory=request.directory,
        required_attainment=prepared.required_attainment,
        against=request.against,
        vllm_defaults=vllm_defaults(prepared.plan),
        save=lambda state: write_state(request.directory, state),
        compare=compare,
        check=check,
    )


def about(prepared: Prepared) -> dict[str, Any]:
    """What makes the trials of two runs comparable; where it differs, they are not mixed."""
    profile = prepared.loaded.profile.model_dump(mode="json", exclude={"meta"})
    text = json.dumps(profile, sort_keys=True)
    load = prepared.method.about()
    slo = load.pop("slo")
    return {
        "profile": prepared.request.profile,
        "settings_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "load": load,
        "slo": slo | {"attainment": prepared.request.attainment} if slo else None,
        "vllm_version": prepared.plan.vllm_version,
        "machine": prepared.plan.platform.label,
    }


def tune(prepared: Prepared, console: Console, say: Say) -> Found:
    """
    Search, and write the profile where something faster was found.

    Raises:
        GemmaServeError: nothing could be measured or written.
        KeyboardInterrupt: passed on once the servers are ended; the state is kept.
    """
    request = prepared.request
    check_harness()
    if request.restart and (request.directory / FILE).exists():  # it is ours
        shutil.rmtree(request.directory, ignore_errors=True)
    if request.file.exists() and not (request.directory.exists() or request.force):
        raise ProfileError(
            f"{str(request.file)!r} is there already; name another file with --out, or replace it "
            "with --force."
        )
    state = read_state(request.directory, about(prepared))
    search = search_of(prepared, say)
    say(estimate(search, state))
    with _sigterm_as_ctrl_c(), _shown(search, prepared.method, console) as shown:
        try:
            found = run(shown, state)
        except KeyboardInterrupt:
            say(
                f"Interrupted; what was measured is in {request.directory}, and the same command "
                f"goes on from there{_or_ends_there(request)}."
            )
            raise
    if found.kept:
        _write(prepared, found)
    return found


def _or_ends_there(request: Request) -> str:
    """How to have the profile of an interrupted search, where there is a trial to make it of."""
    if not (request.directory / FILE).exists():
        return ""
    return (
        "; with --max-trials 1 --against none it measures nothing more and writes the profile of "
        "what was kept so far"
    )


def estimate(search: Search, state: State) -> str:
    """How long it will take, said before it begins."""
    comparison_s = search.estimate_s(lossy=False, state=state)
    total_s = sum(search.estimate_s(lossy=change.lossy, state=state) for change in search.changes)
    total_s += search.estimate_s(lossy=True, state=state) if search.against != "none" else 0.0
    known = f"; {len(state.trials)} are known from before" if state.trials else ""
    return (
        f"{len(search.changes)} settings to try{known}; a comparison takes about "
        f"{comparison_s / 60:.0f} min, all of it up to {total_s / 60:.0f} min "
        f"(limit {search.limits.max_minutes:g}). Ctrl-C keeps what was measured, and writes no "
        "profile."
    )


def _write(prepared: Prepared, found: Found) -> None:
    request, loaded = prepared.request, prepared.loaded
    text = tuned_profile(request.profile, loaded.files[-1], request.file, request.overrides, found)
    unfinished = request.file.with_name(f".{request.file.name}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(request.file)
    except OSError as error:
        raise ProfileError(
            f"The profile can't be written to {str(request.file)!r}: {error.strerror}; the "
            f"measurements are in {request.directory}."
        ) from None


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _shown(search: Search, method: Method, console: Console) -> Iterator[Search]:
    """The search with a bar of the blocks that are measured; lines where there is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=method.num_blocks)

        def on_trial(doing: Doing) -> None:
            line = f"Comparison {doing.number}: {doing.name}"
            bar.reset(task, description=line, total=method.num_blocks)
            if not console.is_terminal:
                console.print(f"{line}...", markup=False)

        def compare(a: str, b: str, directory: Path, quality: bool) -> Compared:
            return harness.compare(
                a,
                b,
                directory,
                method,
                quality=quality,
                on_blocks=lambda done: bar.update(task, completed=done),
            )

        yield replace(search, on_trial=on_trial, compare=compare)


def dry_run_json(prepared: Prepared, search: Search) -> dict[str, Any]:
    """What would be tried, for machines."""
    return {
        "trials": [
            {"setting": change.name, "keys": dict(change.keys), "why": change.why}
            for change in prepared.changes
        ],
        "against": search.against,
        "vllm_defaults": dict(search.vllm_defaults),
        "estimate": estimate(search, State(about={})),
    }


def print_dry_run(prepared: Prepared, search: Search, console: Console) -> None:
    """The trials in their order, before any is made."""
    table = _table("setting", "keys", "why")
    for change in prepared.changes:
        table.add_row(change.name, Text("\n".join(options(change.keys))), change.why)
    console.print(table)
    console.print(Text(estimate(search, State(about={}))), soft_wrap=True)


def _table(*headings: str) -> Table:
    """A table that shows every word, in a narrow terminal too."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def tuned_json(prepared: Prepared, found: Found) -> dict[str, Any]:
    """What was found, for machines."""
    return {
        "output": str(prepared.request.file) if found.kept else None,
        "settings": found.chosen,
        "missed_slo": found.missed_slo,
        "evidence": evidence_of(found),
    }


def print_tuned(prepared: Prepared, found: Found, console: Console) -> None:
    """A line a trial, the whole against its base, and what to do next."""
    has_slo = prepared.required_attainment is not None
    table = _table("setting", "outcome", "tokens/s", *(["SLO kept"] if has_slo else []), "why")
    for trial in found.state.trials:
        outcome = Text(trial.outcome, style=_STYLES.get(trial.outcome, ""))
        slo = [_attainment(trial)] if has_slo else []
        table.add_row(trial.name, outcome, _ratio(trial), *slo, Text(_why(trial)))
    console.print(table)
    if found.left_out:
        console.print(Text(f"Not tried, as a limit was reached: {', '.join(found.left_out)}."))
    if found.final is not None and found.final.outcome != "measured":
        console.print("The final comparison came to nothing; the same command makes it again.")
    if found.missed_slo:
        console.print(Text(f"Beware: {found.missed_slo}.", style="yellow"), soft_wrap=True)
    if not found.kept:
        console.print("Nothing faster was found; no profile is written.")
        return
    path = shlex.quote(str(prepared.request.file))
    line = f"Written to {path}. Next: gemma-serve check {path}, then gemma-serve serve {path}"
    console.print(Text(line), soft_wrap=True)


def _ratio(trial: Trial) -> str:
    through = trial.compared.throughput if trial.compared else None
    return str(through) if through else "-"


def _attainment(trial: Trial) -> str:
    part = trial.compared.attainment if trial.compared else None
    return "-" if part is None else f"{part:.1%}"


def _why(trial: Trial) -> str:
    agreement = trial.compared.agreement if trial.compared else None
    return trial.reason + (f" [{agreement}]" if agreement else "")
