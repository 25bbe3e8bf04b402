"""
Runs the commands of the set-up: a line of progress each, all output in a log, a failure explained.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

NETWORK = "the package index can't be reached; check the network and `pip config list`"
# The first that occurs in the output names the cause. Order matters: a pip without network also
# says that no version matches.
CAUSES = (
    ("No space left on device", "the disk is full; free some space"),
    ("CERTIFICATE_VERIFY_FAILED", "a TLS certificate is not trusted; point PIP_CERT at your CA's"),
    ("401 Error", "the package index wants a login; check `pip config list`"),
    ("403 Error", "the package index refuses access; check `pip config list`"),
    ("ProxyError", "the proxy refuses; check HTTPS_PROXY"),
    ("NewConnectionError", NETWORK),
    ("NameResolutionError", NETWORK),
    ("ConnectTimeout", NETWORK),
    ("ReadTimeoutError", "the network broke off or is too slow; raise PIP_DEFAULT_TIMEOUT"),
    ("DO NOT MATCH THE HASHES", "a cached download is damaged; run `pip cache purge`"),
    ("Permission denied", "a file belongs to another user; remove .venv"),
    ("No matching distribution", "the package index lacks that version; check `pip config list`"),
    ("ResolutionImpossible", "a pip constraint forbids that version; check `pip config list`"),
    ("Failed building wheel", "a package has to be compiled; install a C++ compiler"),
)
LINES_OF_FAILURE = 12


class SetupError(Exception):
    """The set-up can't go on; the message says why and what to do."""


def cause(output: str, returncode: int) -> str:
    """Say in a few words why a command failed, and what to do."""
    if returncode == -9:
        return "it was killed, most likely for want of memory; free some"
    for sign, text in CAUSES:
        if sign in output:
            return text
    return f"it exited with {returncode}; mend what its last lines above say"


def show(line: str, end: str = "\n") -> None:
    """Print a line, over the unfinished one on a terminal."""
    print(f"\r\x1b[K{line}" if sys.stdout.isatty() else line, end=end, flush=True)


def last_line(path: Path) -> str:
    """Read the last line of a text file that may be long."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16_384))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


class Step:
    """A step of the set-up: one line with its title, what runs now (on a terminal), its seconds."""

    def __init__(self, title: str, log: Path) -> None:
        self.title = title
        self.log = log
        self.start = time.monotonic()
        if not sys.stdout.isatty():
            show(f"  {title} ...")

    def run(self, *command: str | Path) -> tuple[int, str]:
        """Run a command; return its exit code and its output."""
        with self.log.open("a+") as log:
            print("$", *command, file=log, flush=True)
            begin = log.tell()
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            try:
                while process.poll() is None:
                    self._tick()
                    time.sleep(0.2)
            except KeyboardInterrupt:
                process.terminate()  # a terminal has told it too, `kill` has not
                process.wait()
                raise
            log.seek(begin)
            return process.returncode, log.read()

    def _tick(self) -> None:
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            seconds = f"{time.monotonic() - self.start:.0f} s"
            show(f"  {self.title} ... {seconds}  {last_line(self.log)}"[:width], end="")

    def done(self, result: str = "done") -> None:
        """Close the line."""
        show(f"  {self.title}: {result}, {time.monotonic() - self.start:.1f} s")

    def error(self, what: str, output: str, returncode: int) -> SetupError:
        """Show the end of the output; return the error that says what failed and why."""
        for line in output.strip().splitlines()[-LINES_OF_FAILURE:]:
            show(f"    | {line}")
        return SetupError(f"{what} failed: {cause(output, returncode)}, and run this again.")
