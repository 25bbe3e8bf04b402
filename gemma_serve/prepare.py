"""What has to be set before vLLM is imported, in this process and for those that it starts."""

from __future__ import annotations

import json
import logging.config
import os
from pathlib import Path

from gemma_serve import logs
from gemma_serve.engine.plugin import EVENTS_VARIABLE
from gemma_serve.engine.processes import quiet_children
from gemma_serve.plan import Plan
from gemma_serve.profile.schema import Observability
from gemma_serve.progress import Progress
from gemma_serve.rundir import no_temporary_files

# Where vLLM's processes put the sockets between them; its default is open to all users.
SOCKETS_VARIABLE = "VLLM_RPC_BASE_PATH"


def prepare_environment(plan: Plan, folder: Path, progress: Progress) -> Path:
    """
    Set the environment that the plan resolved, begin to log, and say the plan's notes.

    Returns:
        The file in `folder` in which vLLM's processes write what they are doing.
    """
    events = folder / "events.jsonl"
    os.environ.update(plan.resolved.env_dict())
    os.environ[EVENTS_VARIABLE] = str(events)
    os.environ.setdefault(SOCKETS_VARIABLE, str(folder))
    _begin_logging(plan.loaded.profile.observability, folder, progress)
    for note in plan.resolved.notes:
        progress.say(f"Note: {note}")
    quiet_children()
    return events


def _begin_logging(settings: Observability, folder: Path, progress: Progress) -> None:
    """Log as the profile says, in this process and, by a file in `folder`, in vLLM's."""
    if logs.CONFIG_VARIABLE not in os.environ:  # the operator's own wins
        config = logs.config(settings, os.environ.get("VLLM_LOGGING_LEVEL", "INFO"))
        file = folder / "logging.json"
        try:
            file.write_text(json.dumps(config), encoding="utf-8")
        except OSError as error:
            raise no_temporary_files(error) from error
        os.environ[logs.CONFIG_VARIABLE] = str(file)
        logging.config.dictConfig(config)
    if settings.log_format == "json":
        progress.logger = logging.getLogger("gemma_serve")
