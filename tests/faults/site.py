"""A server for faults: all of its ledgers are on, and whatever it leaves behind is found."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tokenizers import Tokenizer

from gemma_serve.profile.schema import Limits
from tests.commands import Command, running_into
from tests.conftest import TINY
from tests.faults.answers import Decode, other_alone
from tests.faults.asked import NUM_TOKENS
from tests.faults.ledger import End, Entry, Load, under_load
from tests.faults.sink import Sink
from tests.servers import GRPC_LINE, Server
from tests.tiny_gemma import make_tiny_gemma

SERVING = r"Serving tiny at (http://[\d.:]+)"
KEY = "good-key"
# A KV cache that is full long before the batch of sixteen is, and deadlines of seconds.
SETTINGS = (
    "max_model_len=2048",
    "kv_cache_memory_gib=0.01",
    "engine.max_num_seqs=16",
    "limits.max_queued_requests=400",
    "limits.max_body_bytes=1000000",
    "limits.max_grammar_compile_s=0.5",
    "chat.tool_call_parser=pythonic",
    "limits.header_timeout_s=10",
    "limits.write_timeout_s=3",
    "limits.drain_s=8",
    "observability.log_format=json",
    "observability.access_log=true",
)
SUCCESS, FINISHED = "vllm:request_success_total", ("stop", "length")
IDLE_S = 5.0
GAUGES = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "gemma_serve_admission_waiting_requests",
)
# Which access line a request may have, by its end; one that has left may have had its answer, or
# was never read.
STATUSES: Mapping[End, Callable[[int], bool]] = {
    End.COMPLETED: lambda status: status == 200,
    End.REFUSED: lambda status: status >= 400 and status != 499,
    End.FAILED: lambda status: status >= 400 and status != 499,
    End.LEFT: lambda status: status in (200, 499),
}


@dataclass(frozen=True)
class Scale:
    """How much of a fault there is: a part of it in each run of the tests, all in the report."""

    requests: int = 40
    num_tokens: int = 40
    num_clients: int = 32
    leavers: int = 12  # who leave in the middle of a stream
    readers: int = 4  # who read a byte a second, and who read nothing
    idle: int = 100  # connections that say nothing
    half: int = 10  # those that stop in the headers, and those in the body
    compared: int = 3  # answers that are held against those of an idle server
    prompt_tokens: int = 500  # of the prompts that fill the KV cache
    cycles: int = 2
    restarts: int = 1  # of each of two replicas
    is_full: bool = False
    say: Callable[[str], None] = print  # how far a long fault is

    @property
    def load(self) -> dict[str, int]:
        """The requests that a fault comes into."""
        return {
            "requests": self.requests,
            "num_tokens": self.num_tokens,
            "num_clients": self.num_clients,
            "compared": self.compared,
        }

    def most(self, promised: float, in_tests: float) -> float:
        """
        The most that a time or a ratio may be.

        The tests run on machines that do other things too, and have more patience.
        """
        return promised if self.is_full else in_tests


FULL = Scale(
    requests=300,
    num_tokens=NUM_TOKENS,
    leavers=300,
    readers=100,
    idle=1000,
    half=100,
    compared=16,
    prompt_tokens=1700,
    cycles=50,
    restarts=20,
    is_full=True,
)


def make_profile(directory: Path) -> Path:
    """A tiny Gemma in float32, whose answers do not depend on who is in the batch with them."""
    model = make_tiny_gemma(directory / "tiny", dtype="float32")
    profile = directory / "tiny.yaml"
    profile.write_text(yaml.safe_dump({"model": str(model), **TINY, "dtype": "fp32"}))
    return profile


@dataclass
class Site:
    """A server under observation."""

    command: Command
    server: Server
    sink: Sink
    access: Path  # its log, with a line of each request
    keys: Path
    temporary: Path  # its TMPDIR
    settings: Mapping[str, str]  # what --set has changed
    decode: Decode  # the model's tokenizer
    others: frozenset[Path]  # what another server has left in `temporary`
    shared_memory: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it serves."""
        return self.server.base_url

    @property
    def pid(self) -> int:
        """The server's own process."""
        return self.command.process.pid

    @property
    def asking(self) -> dict[str, Any]:
        """What clients need to be let in, and to see whether an answer is theirs."""
        return {"headers": self.server.headers, "decode": self.decode}

    def limit(self, name: str) -> float:
        """One of its limits, in seconds or whatever it is in."""
        return float(self.settings.get(f"limits.{name}", getattr(Limits(), name)))

    def samples(self, *names: str) -> list[Any]:
        """The series of these names now."""
        with self.server.client() as http:
            text = http.get("/metrics").raise_for_status().text
        # To parse the others would take the time of the clients that run beside.
        lines = [line for line in text.splitlines() if line.startswith(names)]
        families = text_string_to_metric_families("\n".join(lines) + "\n")
        return [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of a series over all other labels."""
        return total(self.samples(name), name, **labels)

    def finished(self) -> float:
        """Requests that the engine has brought to their end."""
        samples = self.samples(SUCCESS)
        return sum(total(samples, SUCCESS, finished_reason=reason) for reason in FINISHED)

    def lines(self) -> dict[str, list[dict[str, Any]]]:
        """The access log's lines by request id."""
        return lines_of(self.access)

    def status_of(self, path: str) -> int:
        """The status of a probe, soon."""
        with self.server.client() as http:
            return http.get(path).status_code

    def assert_at_rest(self) -> float:
        """Within a bound nothing runs, waits or holds KV cache; return the seconds it took."""
        began_s = time.monotonic()
        while any(self.held().values()):
            assert time.monotonic() < began_s + IDLE_S, self.held()
            time.sleep(0.1)
        assert self.status_of("/readyz") == 200
        return time.monotonic() - began_s

    def held(self) -> dict[str, float]:
        """What requests hold now."""
        samples = self.samples(*GAUGES)
        return {name: total(samples, name) for name in GAUGES}

    @contextlib.contextmanager
    def loaded(
        self, name: str, requests: int, num_clients: int = 32, compared: int = 0, **options: Any
    ) -> Iterator[Load]:
        """
        Clients at work for a with block, whose ledger is joined with the server's two at its end.

        Nobody else may have the engine finish requests meanwhile.

        Args:
            requests: So many in all; 0 is for as long as the block.
            compared: So many answers are asked for again, one at a time: the text is the same.
        """
        before = self.finished()
        with under_load(
            self.url, num_clients, name=name, num_requests=requests, **self.asking, **options
        ) as load:
            yield load
        self.join(load.ledger.entries)
        self.assert_at_rest()
        ends = collections.Counter(entry.end for entry in load.ledger.entries)
        finished, most = self.finished() - before, ends[End.COMPLETED] + ends[End.LEFT]
        assert ends[End.COMPLETED] <= finished <= most, (ends, finished)
        with self.server.client() as http:
            other = other_alone(http, load.ledger.entries, compared, load.num_tokens)
        assert not other, other

    def join(self, entries: Sequence[Entry]) -> None:
        """Each request has one end, and it is the same one for its client and for the server."""
        deadline_s = time.monotonic() + IDLE_S
        while (problems := disagreements(entries, self.lines())) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert not problems, problems[:10]

    def note_shared_memory(self) -> None:
        """Keep which shared memory its processes have: none of it may be left."""
        for process in self.command.processes():
            with contextlib.suppress(OSError):
                maps = Path(f"/proc/{process.pid}/maps").read_text()
                self.shared_memory |= {
                    "/dev/shm/" + line.split("/dev/shm/")[1]
                    for line in maps.splitlines()
                    if "/dev/shm/" in line and not line.endswith("(deleted)")
                }

    def assert_nothing_left(self) -> None:
        """No process, no shared memory, no socket, no run directory."""
        deadline_s = time.monotonic() + IDLE_S
        # Python's resource tracker leaves, and frees, a moment after its parent.
        while (left := self.left()) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert not left, left

    def left(self) -> list[str]:
        """What is still there of it."""
        shared = [path for path in self.shared_memory if Path(path).exists()]
        found = set(self.temporary.rglob("*")) - self.others
        files = [str(path) for path in found if _is_ours(path)]
        return [*map(str, self.command.processes()), *shared, *files]


def lines_of(access: Path) -> dict[str, list[dict[str, Any]]]:
    """An access log's lines by request id."""
    found: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for line in access.read_text().splitlines():
        # The last one may be half there.
        with contextlib.suppress(ValueError):
            fields = json.loads(line)
            if fields["logger"] == "gemma_serve.access":
                found[fields["request_id"]].append(fields)
    return found


def total(samples: Sequence[Any], name: str, **labels: str) -> float:
    """The sum of a series over all labels but these."""
    return sum(
        sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def _is_ours(path: Path) -> bool:
    return path.is_socket() or path.name.startswith("gemma-serve")


def disagreements(
    entries: Sequence[Entry], lines: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[str]:
    """Requests whose client was told another end than the access log has, or none, or two."""
    found = []
    for entry in entries:
        statuses = [int(line["status"]) for line in lines.get(entry.id, ())]
        if entry.end in (End.LOST, End.BROKEN):
            found.append(f"{entry} is lost")
        elif entry.wrong:
            found.append(f"{entry.path} {entry.id}: {entry.wrong}")
        elif entry.end is End.UNREACHABLE or (entry.end is End.LEFT and not statuses):
            continue
        elif len(statuses) != 1 or not STATUSES[entry.end](statuses[0]):
            found.append(f"{entry} has {statuses} in the access log")
    return found


@contextlib.contextmanager
def site_of(
    profile: Path,
    directory: Path,
    *overrides: str,
    environ: Mapping[str, str] | None = None,
    temporary: Path | None = None,
) -> Iterator[Site]:
    """
    A server with keys and ledgers; at the end it is told to end, if it still runs.

    One that was killed leaves its files: the next start removes them.

    Args:
        temporary: Its TMPDIR. Default: one of its own.
    """
    directory.mkdir(parents=True, exist_ok=True)
    access, keys = directory / "server.log", directory / "keys"
    keys.write_text(f"{KEY} good\n")
    settings = (*SETTINGS, f"server.api_keys_file={keys}", f"observability.log_file={access}")
    words = ("server.port=0", *settings, *overrides)
    sink = Sink(directory / "output.log")
    with contextlib.ExitStack() as stack:
        temporary = temporary or stack.enter_context(temporary_directory())
        others = frozenset(temporary.rglob("*"))
        with (
            sink.output,
            running_into(
                sink.output,
                ["serve", profile, *(f"--set={word}" for word in words)],
                sink.log,
                {**os.environ, **(environ or {}), "TMPDIR": str(temporary)},
            ) as command,
        ):
            sink.output.close()
            server = Server(command.process, sink.log, headers={"x-api-key": KEY})
            set_to = dict(word.split("=", 1) for word in words)
            decode = tokenizer_of(profile)
            site = Site(command, server, sink, access, keys, temporary, set_to, decode, others)
            server.base_url = command.wait_for(SERVING)
            if found := GRPC_LINE.search(command.output()):
                server.grpc_address = found[1]
            site.note_shared_memory()
            yield site
            if command.process.poll() is None:
                command.process.terminate()
                assert command.ended() == 0, command.output()
            if command.process.returncode != -signal.SIGKILL:
                site.assert_nothing_left()
        sink.close()


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    """A TMPDIR with a short name: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="f-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def tokenizer_of(profile: Path) -> Decode:
    """What makes text of the ids of a profile's model."""
    model = yaml.safe_load(profile.read_text())["model"]
    tokenizer = Tokenizer.from_file(str(Path(model, "tokenizer.json")))
    return lambda ids: str(tokenizer.decode(list(ids)))


def descendants(site: Site) -> set[int]:
    """Its processes: a fault that it survives changes none of them."""
    return {process.pid for process in psutil.Process(site.pid).children(recursive=True)}
