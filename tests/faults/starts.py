"""F9: starts that fail, and starts that are told to end; no client has had an answer of theirs."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import without_paths
from tests.commands import Command, running_into
from tests.faults.figures import Figures
from tests.faults.sink import Sink
from tests.faults.site import Scale, temporary_directory
from tests.reliability.trends import Check

EXIT_S, IN_TESTS_S = 10.0, 60.0
STOPPED = "Stopped before the server was ready."


def starts_fail(profile: Path, directory: Path, scale: Scale) -> Figures:
    """
    A port that is taken, a profile with mistakes, a model whose weights are cut off: each start
    ends within seconds and with one sentence, and leaves nothing.
    """
    directory.mkdir(parents=True)
    mistakes = with_mistakes(profile, directory)
    half = f"--set=model={with_half_weights(profile, directory)}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"--set=server.port={taken.getsockname()[1]}"
        found = {
            "the port is taken": refused_start([profile, port], directory),
            "the profile has mistakes": refused_start([mistakes], directory, says=f"{mistakes}:"),
            "the weights are cut off": refused_start([profile, half], directory),
        }
    return in_time(found, scale)


def starts_are_told_to_end(profile: Path, directory: Path, scale: Scale) -> Figures:
    """SIGTERM while vLLM is imported, and while the engine loads: exit code 0, as it was asked."""

    def importing(command: Command) -> object:
        return command.wait_for("Importing vLLM")

    def loading(command: Command) -> object:
        return command.wait_for_process("EngineCore")

    found = {
        until.__name__: ended_start([profile], directory, until=until)
        for until in (importing, loading)
    }
    assert all(start["exit_code"] == 0 for start in found.values()), found
    assert all(start["said"] == STOPPED for start in found.values()), found
    return in_time(found, scale)


def in_time(found: dict[str, Figures], scale: Scale) -> Figures:
    """Starts that have ended, each with the time that it may have taken."""
    most_s = scale.most(EXIT_S, IN_TESTS_S)
    checks = [Check(f"s until the end: {name}", at["exit_s"], most_s) for name, at in found.items()]
    return {"checks": [vars(check) for check in checks], "starts": found}


def with_mistakes(profile: Path, directory: Path) -> Path:
    """The profile with an unknown key and a word for a number."""
    file = directory / "mistakes.yaml"
    keys = yaml.safe_load(profile.read_text())
    file.write_text(yaml.safe_dump(keys | {"tensor_paralel_size": 1, "max_model_len": "long"}))
    return file


def with_half_weights(profile: Path, directory: Path) -> Path:
    """The profile's model, as a copy that was interrupted leaves it."""
    model = Path(yaml.safe_load(profile.read_text())["model"])
    copy = shutil.copytree(model, directory / "half")
    [weights] = copy.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return copy


def refused_start(
    words: Sequence[str | Path], directory: Path, says: str = "gemma-serve: ", **options: Any
) -> Figures:
    """Start what can't be started; hold the end to what is promised of a failed start."""
    found = ended_start(words, directory, **options)
    assert found["exit_code"] != 0, found
    assert found["said"].startswith(says), found
    assert not found["has_stack"], found
    return found | {"said": without_paths(found["said"])}


def ended_start(
    words: Sequence[str | Path],
    directory: Path,
    prepare: Callable[[], object] | None = None,
    until: Callable[[Command], object] | None = None,
    temporary: Path | None = None,
) -> Figures:
    """
    A start and its end: the code, the seconds, the last line, a stack or none; nothing is left.

    Args:
        words: What follows `gemma-serve serve`.
        prepare: Called in the new process first, such as to limit it.
        until: Waits for the moment at which it gets SIGTERM. Default: it ends by itself.
        temporary: Its TMPDIR. Default: one of its own.
    """
    directory.mkdir(parents=True, exist_ok=True)
    began_s, sink = time.monotonic(), Sink(directory / f"output-{time.monotonic_ns()}.log")
    asked: list[Any] = ["serve", words[0], "--set=server.port=0", *words[1:]]
    with contextlib.ExitStack() as stack:
        temporary = temporary or stack.enter_context(temporary_directory())
        environ = {"TMPDIR": str(temporary)}
        with running_into(sink.output, asked, sink.log, environ, prepare) as command:
            sink.output.close()
            if until is not None:
                until(command)
                began_s = time.monotonic()
                command.process.send_signal(signal.SIGTERM)
            code, took_s = command.ended(), time.monotonic() - began_s
        assert not list(temporary.rglob("gemma-serve*"))
    sink.drain()
    return {
        "exit_code": code,
        "exit_s": round(took_s, 1),
        "said": command.last_line(),
        "has_stack": "Traceback" in command.output(),
    }
