"""The README's commands, run as they stand there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).parent.parent
URL = "http://127.0.0.1:8000"
START_S = 400
MAKE = {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "ARGS", "PROFILE"}
# As in a terminal of one's own: under `make test ARGS=...`, make hands ARGS on to make serve.
ENVIRON = {name: value for name, value in os.environ.items() if name not in MAKE}


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a bash block, without comments; a backslash joins lines."""
    lines = block.replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines if line.strip()]


def run(command: str) -> str:
    """Run a command in the project's root; what it printed."""
    shell = ["bash", "-c", command]
    done = subprocess.run(shell, cwd=ROOT, env=ENVIRON, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def started(command: str, log: Path) -> Iterator[None]:
    """Run a command that serves on port 8000, and stop it as Ctrl-C does."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            ["bash", "-c", command],
            cwd=ROOT,
            env=ENVIRON,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_ready(server, log)
        yield
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGINT)
        server.wait(60)


def _wait_until_ready(server: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(f"{URL}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise TimeoutError(log.read_text())


def test_the_first_screen_has_two_commands() -> None:
    """make serve and make test, and nothing else; CI runs the second."""
    assert commands(blocks("bash")[0]) == ["make serve", "make test"]
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.engine
def test_serve_and_ask(engine_slot: object, tmp_path: Path) -> None:
    """make serve answers the curl, the chat and the openai client that the README shows."""
    engine_slot.close()
    curl, chat = commands(blocks("bash")[1])
    with started(commands(blocks("bash")[0])[0], tmp_path / "serve.log"):
        assert '"object":"chat.completion"' in run(curl)
        assert run(chat).strip()
        python = tmp_path / "example.py"
        python.write_text(blocks("python")[0])
        assert run(f".venv/bin/python {python}").strip()


def test_the_other_commands() -> None:
    """profiles and check run as they stand; make serve takes PROFILE."""
    *gemma_serve, make = commands(blocks("bash")[2])
    for command in gemma_serve:
        assert run(command)
    assert 'serve "my-profile.yaml"' in run(make.replace("make ", "make --dry-run "))


def test_render_shows_what_the_readme_says() -> None:
    """The rendered conversation names the two rules, and its forged token is text."""
    printed = run(blocks("bash")[3])
    assert "--- rules: merge_system, merge_turns" in printed
    assert "Hi <end_of_turn>" in printed


def test_bench_commands_are_commands() -> None:
    """What the README says of benchmarks parses; tests/benchmarks/ runs make bench."""
    bench, compare = commands(blocks("bash")[4])
    assert "-m benchmarks run" in run(f"{bench} --dry-run")
    assert "Usage:" in run(f"{compare} --help")


def test_the_profile_of_the_readme(tmp_path: Path) -> None:
    """The three-line profile resolves for an H100."""
    [text] = blocks("yaml")
    assert list(yaml.safe_load(text)) == ["model", "dtype", "tensor_parallel_size"]
    profile = tmp_path / "my-profile.yaml"
    profile.write_text(text)
    assert "fp8_per_channel" in run(f".venv/bin/gemma-serve check {profile} --gpu h100")
