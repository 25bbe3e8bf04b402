"""
The commands of the pages.

Each is run as it stands, or held to the real command line's own parser where it would take minutes
(`LONG` says where such a command runs, with smaller sizes), or says in a comment what it needs that
no test machine has. tests/test_readme.py has the README's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gemma_serve.cli import app
from tests.deploy.replicas import ENVIRON
from tests.docs.command_lines import parse
from tests.docs.pages import ROOT, Command, all_pages, commands
from tests.servers import Server
from tests.triton.repositories import python_backend

BOUND_S = 120
PAGES = [page for page in all_pages() if page != ROOT / "README.md"]
HERE = [command for page in PAGES for command in commands(page)]
# vLLM's own command is held to its parser in test_from_vllm_serve.py.
TRIED = [c for c in HERE if c.needs is None and c.words[:2] != ["vllm", "serve"]]
NEEDS = ("a GPU", "a cluster", "Docker", "systemd")
# Ends within a second, without an engine.
QUICK = {"check", "plan", "profiles", "schema", "version", "import-triton"}
TALK = {"chat", "top"}
# Takes minutes, or goes on until Ctrl-C -> the tests that run it.
LONG = {
    "gemma-serve serve": "tests/test_launcher.py",
    "gemma-serve quantize": "tests/quantize/test_run.py",
    "gemma-serve quality": "tests/quality/test_engine.py",
    "gemma-serve tune": "tests/tune/test_command.py",
    "gemma-serve triton-check": "tests/triton/test_triton_check.py",
    "benchmarks run": "tests/benchmarks/test_commands.py",
    "benchmarks sweep": "tests/benchmarks/test_commands.py",
    "benchmarks replay": "tests/test_flight.py",
    "benchmarks compare": "tests/benchmarks/test_real_server.py",
    "benchmarks report": "tests/benchmarks/report/test_page.py",
    "make serve": "tests/test_readme.py",
    "make demo": "tests/test_demo.py",
    "make bench": "tests/benchmarks/test_make_bench.py",
}
# Others' programs -> what stops them once they have read the rest, and what they say then.
OTHERS = {
    "nginx": ("-t", "nginx.conf test is successful\n"),
    "deploy/replicas/router.sh": ("--no-such", "error: unrecognized arguments: --no-such\n"),
}
ADDRESSES = ("http://127.0.0.1:8000", "http://127.0.0.1:8002", "localhost:8000")


def is_quick(command: Command) -> bool:
    """Whether it is one of our commands that starts nothing."""
    return command.words[0] == "gemma-serve" and command.words[1] in QUICK


def talks(command: Command) -> bool:
    """Whether it asks a server that runs already."""
    first, second, *_ = command.words
    return (
        first == "curl"
        or (first == "gemma-serve" and second in TALK)
        or command.words[2:5] == ["benchmarks", "run", ADDRESSES[0]]
    )


def is_others(command: Command) -> bool:
    """Whether it starts a program that is not ours."""
    return command.words[0] in OTHERS


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the pages speak of."""
    (tmp_path / "my-profile.yaml").write_text("model: google/gemma-3-27b-it\ndtype: fp8\n")
    (tmp_path / "MODEL.yaml").write_text("model: google/gemma-3-1b-it\n")
    python_backend(tmp_path / "model_repository")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_a_command_needs_is_one_of_these() -> None:
    """A mark excuses from being run, so that it can't say just anything."""
    for command in HERE:
        assert command.needs is None or command.needs.startswith(NEEDS), (
            f"{command}: needs {command.needs!r}; write one of {', '.join(NEEDS)}"
        )


@pytest.mark.parametrize("command", [c for c in TRIED if is_quick(c)], ids=str)
def test_it_runs(command: Command, files: Path) -> None:
    """A command that starts nothing runs as it stands."""
    done = CliRunner().invoke(app, command.words[1:])

    # A plan says by its exit code whether the profile fits.
    assert done.exit_code in ((0, 1) if command.words[1] == "plan" else (0,)), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.stdout


@pytest.mark.parametrize("command", [c for c in TRIED if talks(c)], ids=str)
def test_it_is_answered(command: Command, tiny_server: Server, tmp_path: Path) -> None:
    """A command that asks a running server gets its answer, at the tests' address and model."""
    text = command.text.replace(".venv/bin/", "").replace("gemma-3-270m", "tiny")
    for address in ADDRESSES:
        text = text.replace(address, tiny_server.base_url)
    # These two know the address by default.
    text = text.replace("gemma-serve chat", f"gemma-serve chat --url {tiny_server.base_url}")
    text = text.replace("gemma-serve top", f"gemma-serve top {tiny_server.base_url}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", text],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    # A measurement on a machine that also runs tests may be INVALID: 3.
    assert done.returncode in ((0, 3) if "benchmarks" in text else (0,)), done.stderr
    assert done.stdout.strip()
    assert '"error"' not in done.stdout


@pytest.mark.parametrize("command", [c for c in TRIED if is_others(c)], ids=str)
def test_another_program_reads_it(command: Command, tmp_path: Path) -> None:
    """nginx reads its configuration and vllm-router its options, and neither goes on to serve."""
    stop, said = OTHERS[command.words[0]]
    text = command.text.partition("   #")[0].replace("/var/lib/nginx", str(tmp_path))
    done = subprocess.run(
        ["bash", "-c", f"{text} {stop}"],
        cwd=ROOT,
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    assert done.stderr.endswith(said), done.stderr


@pytest.mark.parametrize(
    "command",
    [c for c in TRIED if not is_quick(c) and not talks(c) and not is_others(c)],
    ids=str,
)
def test_it_is_a_command(command: Command, files: Path) -> None:
    """A command that takes minutes has the words and options of the real command line."""
    words = [word for word in command.words if word not in ("python", "-m")]
    held_by = LONG.get(" ".join(words[:2]))
    assert held_by, f"{command}: which test runs {command.text!r}? Or what does it need?"
    assert (ROOT / held_by).exists()
    if words[0] == "make":
        dry = ["make", "--dry-run", *words[1:]]
        subprocess.run(dry, cwd=ROOT, capture_output=True, timeout=BOUND_S, check=True)
    else:
        parse(words)
