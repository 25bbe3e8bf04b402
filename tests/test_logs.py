"""How lines of the log look, and where they go."""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemma_serve import log_sink, logs, metrics
from gemma_serve.profile.schema import Observability

LINE_ENDS = "first\nsecond\r\x1b[31mred\u2028\x00"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """The loggers as they were."""
    yield
    for name in ("vllm", "uvicorn", "gemma_serve"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            handler.close()
            logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def _begin(**settings: object) -> None:
    logging.config.dictConfig(logs.config(Observability(**settings), "WARNING"))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nobody_writes_a_second_line(capfd: pytest.CaptureFixture[str], log_format: str) -> None:
    """Control characters and line ends in a message are escaped: one record is one line."""
    _begin(log_format=log_format)
    logging.getLogger("gemma_serve.test").info("%s", LINE_ENDS)
    log_sink.wait_until_written()
    captured = capfd.readouterr()
    text = captured.err if log_format == "text" else captured.out
    assert len(text.splitlines()) == 1
    assert text.removesuffix("\n").isprintable()
    if log_format == "json":
        assert json.loads(text)["message"] == LINE_ENDS


def test_json_line(capfd: pytest.CaptureFixture[str]) -> None:
    """A line has its time, level, process and request, and a failure's trace."""
    _begin(log_format="json")
    token = logs.request_facts.set({"request_id": "mine-1"})
    try:
        int("odd \ud800")
    except ValueError:
        logging.getLogger("vllm.engine").exception("It failed: %d", 7)
    finally:
        logs.request_facts.reset(token)
    log_sink.wait_until_written()
    line = json.loads(capfd.readouterr().out)
    assert line.pop("time").endswith("Z")
    assert "ValueError" in line.pop("trace")
    assert line.pop("pid") > 0
    assert line == {
        "level": "error",
        "logger": "vllm.engine",
        "process": "server",
        "message": "It failed: 7",
        "request_id": "mine-1",
    }


def test_levels(capfd: pytest.CaptureFixture[str]) -> None:
    """vLLM's lines are those of VLLM_LOGGING_LEVEL; ours are written from INFO on."""
    _begin()
    for name in ("vllm.engine", "uvicorn.error", "gemma_serve.api"):
        logging.getLogger(name).info("info of %s", name)
        logging.getLogger(name).warning("warning of %s", name)
    log_sink.wait_until_written()
    text = capfd.readouterr().err
    assert "info of gemma_serve.api" in text
    assert "info of vllm" not in text
    assert "info of uvicorn" not in text
    assert text.count("warning of") == 3


def _dropped() -> float:
    [family] = metrics.LOG_LINES_DROPPED.collect()
    return family.samples[0].value


def test_nobody_waits_for_a_reader_that_stops() -> None:
    """What fits neither into the pipe nor into the line is dropped, counted; the rest is read."""
    reading, writing = os.pipe()
    sink, before = log_sink.Sink(writing), _dropped()
    began_s = time.monotonic()
    num_lines = 2 * log_sink.MAX_LINES
    for number in range(num_lines):
        sink.write(f"{number:<999}\n")
    assert time.monotonic() - began_s < 5
    dropped = int(_dropped() - before)
    assert 0 < dropped < num_lines - log_sink.MAX_LINES + 1

    with os.fdopen(reading) as pipe:
        written = [int(pipe.readline()) for _ in range(num_lines - dropped)]
    assert written == sorted(set(written))
    assert written[: log_sink.MAX_LINES] == list(range(log_sink.MAX_LINES))
    os.close(writing)


def test_a_reader_that_is_gone() -> None:
    """A closed pipe costs lines, and nothing else."""
    reading, writing = os.pipe()
    os.close(reading)
    sink, before = log_sink.Sink(writing), _dropped()
    sink.write("to nobody\n")
    sink.wait_until_written()
    assert _dropped() == before + 1
    os.close(writing)


def test_a_fork_writes_too() -> None:
    """The thread stays with the parent; the child begins its own, and has written when it ends."""
    script = (
        "import multiprocessing\n"
        "from gemma_serve.log_sink import STDOUT\n"
        "STDOUT.write('parent\\n')\n"
        "STDOUT.wait_until_written()\n"
        "context = multiprocessing.get_context('fork')\n"
        "child = context.Process(target=STDOUT.write, args=('child\\n',))\n"
        "child.start()\n"
        "child.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout == "parent\nchild\n"


def test_a_full_disk(capfd: pytest.CaptureFixture[str]) -> None:
    """A file that can't be written costs lines, which are counted, and says nothing of it."""
    handler, before = logs.log_file("/dev/full", 1000, 1), _dropped()
    handler.handle(logging.makeLogRecord({"msg": "to nowhere"}))
    assert _dropped() == before + 1
    assert capfd.readouterr().err == ""


def test_file_is_renamed_when_it_is_full(tmp_path: Path) -> None:
    """The file is kept in `log_file_backups` parts of `log_file_mib`; another process follows."""
    file = tmp_path / "server.log"
    handler = logs.log_file(str(file), 1000, 2)
    assert isinstance(handler, logging.handlers.RotatingFileHandler)
    logger = logging.getLogger("gemma_serve.file")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    for number in range(100):
        logger.info("line %d of many that fill a file", number)
    logger.removeHandler(handler)
    handler.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "server.log",
        "server.log.1",
        "server.log.2",
    ]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())


def test_processes_of_vllm_follow_a_file_that_was_renamed(tmp_path: Path) -> None:
    """A child writes to the file of this name, whatever became of the one it had opened."""
    file = tmp_path / "server.log"
    child = (
        "import logging, multiprocessing, os, sys\n"
        "from gemma_serve import logs\n"
        "def write(path):\n"
        "    handler = logs.log_file(path, 1000, 2)\n"
        "    logger = logging.getLogger('vllm')\n"
        "    logger.addHandler(handler)\n"
        "    logger.warning('before')\n"
        "    os.rename(path, path + '.1')\n"
        "    logger.warning('after')\n"
        "if __name__ == '__main__':\n"
        "    fork = multiprocessing.get_context('fork')\n"
        "    process = fork.Process(target=write, args=sys.argv[1:])\n"
        "    process.start(); process.join(); sys.exit(process.exitcode)\n"
    )
    subprocess.run([sys.executable, "-c", child, str(file)], check=True, timeout=60)
    assert file.read_text() == "after\n"
    assert (tmp_path / "server.log.1").read_text() == "before\n"
