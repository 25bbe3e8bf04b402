"""
Chat templates, ours and the published ones, rendered as transformers renders them.

TRL's wheel carries Google's templates for Gemma 1 and 2 (one text) and 4, byte for byte: its
chat_templates/README.md names the revision of each.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

TRL = "trl==1.16.0"
# gemma4_v5: google/gemma-4-E2B-it at 899537982545a3e55ce64d34462b2efa5af85232, of 9 July 2026.
IN_TRL = {"gemma1": "gemma", "gemma2": "gemma", "gemma3": "gemma3", "gemma4": "gemma4_v5"}


def packaged(name: str) -> str:
    """Our text of a template."""
    return (resources.files("gemma_serve") / f"chat/templates/{name}.jinja").read_text("utf-8")


def published(base: Path, name: str) -> str:
    """Google's text of a template that TRL carries."""
    with zipfile.ZipFile(_trl_wheel(base)) as wheel:
        return wheel.read(f"trl/chat_templates/{IN_TRL[name]}.jinja").decode()


@cache  # 1 MB: once a session, which is what one base directory stands for
def _trl_wheel(base: Path) -> Path:
    directory = base / "trl"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(directory), TRL]
    subprocess.run(command, check=True, timeout=300)
    (wheel,) = directory.glob("*.whl")
    return wheel


def outcome(template: str, messages: Any, tools: Any = None, **variables: Any) -> tuple[str, str]:
    """What rendering gives: the text, or the error (its message too where the template raised)."""
    try:
        texts, _ = render_jinja_template(
            conversations=[messages], tools=tools, chat_template=template, **variables
        )
    except jinja2.TemplateError as error:
        message = str(error) if type(error) is jinja2.TemplateError else ""
        return type(error).__name__, message
    except (TypeError, ValueError) as error:
        return type(error).__name__, ""
    return "rendered", texts[0]
