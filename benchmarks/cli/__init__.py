"""The commands of `python -m benchmarks`; each asks, calls one thing, shows it and writes it."""

from __future__ import annotations

import sys
import traceback

import typer

from benchmarks.cli import cell, client, compare, files, judge, sweep
from benchmarks.cli.common import CRASHED, FAILED, INTERRUPTED, Interrupted
from benchmarks.servers import ServerError

app = typer.Typer(
    help="Measure tokens per second of any server of OpenAI's API or KServe v2, or say why it "
    "cannot be told.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# In the order in which they are wanted, and shown.
for command in (
    *(cell.run, cell.replay, sweep.sweep, compare.compare, judge.judge),
    *(files.report, client.calibrate, client.nullserver, files.workload, files.schema),
):
    app.command()(command)


def main() -> None:
    """
    Run a command and exit.

    A mistake, or a server that can't be had, is one clear line and code 64; a fault of the
    harness's own is a traceback and 70. Neither is a code that a verdict has.
    """
    try:
        # Not standalone: there typer itself would exit, with 2 for an option that is none.
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        error.show()  # type: ignore[attr-defined]  # typer's own click has it
        code = FAILED
    except (ServerError, ValueError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        code = FAILED
    except Interrupted:
        print("benchmarks: interrupted; nothing is left running.", file=sys.stderr)
        code = INTERRUPTED
    except SystemExit:
        code = FAILED  # typer's, of a pipe that nobody reads: it would be 1
    except Exception:
        traceback.print_exc()
        code = CRASHED
    sys.exit(code)
