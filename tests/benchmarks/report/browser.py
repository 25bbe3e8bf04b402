"""A page in headless Chromium: its DOM after its scripts, what it logged, and what it asked for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOUND_S = 90
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
)
# Runs in the page: what a reader would stumble over, written where --dump-dom shows it.
INSPECT = """
const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2.5;
const found = [...document.querySelectorAll("svg.plot")].map((svg) => {
  const frame = svg.closest("figure").getBoundingClientRect();
  const size = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map((text) =>
    ({ words: text.textContent, box: text.getBoundingClientRect() }));
  const faults = [];
  texts.forEach((one, i) => {
    const { box } = one;
    if (box.width === 0) faults.push(`no width: ${one.words}`);
    if (box.left < frame.left || box.right > frame.right || box.top < size.top - 1
      || box.bottom > size.bottom + 1) faults.push(`outside: ${one.words}`);
    for (const other of texts.slice(i + 1))
      if (overlap(box, other.box)) faults.push(`overlap: ${one.words} / ${other.words}`);
  });
  return { plot: svg.closest("figure").dataset.plot, id: svg.id, width: size.width,
    height: size.height, texts: texts.length, faults };
});
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
const out = document.createElement("script");
out.type = "application/json";
out.id = "inspected";
out.textContent = JSON.stringify({ plots: found,
  tips: document.querySelectorAll("[data-tip]").length,
  twice: ids.filter((id, i) => ids.indexOf(id) !== i),
  wide: document.documentElement.scrollWidth > innerWidth,
  theme: getComputedStyle(document.documentElement).backgroundColor });
document.body.append(out);
"""


@dataclass(frozen=True)
class Opened:
    """What became of a page."""

    dom: str
    console: list[str]
    inspected: dict[str, Any]


def open_page(
    page: str, directory: Path, *, inspect: bool = True, width: int = 1400, fragment: str = ""
) -> Opened:
    """
    Open a page as a file.

    With `inspect`, a script of the test's own is added and its policy against foreign scripts taken
    off; without, the page is as it was written.
    """
    if inspect:
        page = re.sub(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", "", page)
        page = page.replace("</body>", f"<script>{INSPECT}</script></body>")
    file = directory / "page.html"
    file.write_text(page, encoding="utf-8")
    command = [
        chromium(),
        *QUIET,
        f"--user-data-dir={directory / 'profile'}",
        f"--window-size={width},2000",
        "--dump-dom",
        file.as_uri() + fragment,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=BOUND_S, check=True, encoding="utf-8"
    )
    found = re.search(r'<script type="application/json" id="inspected">(.*?)</script>', done.stdout)
    return Opened(
        done.stdout,
        re.findall(r'CONSOLE[^"]*"(.*)"', done.stderr),
        json.loads(found.group(1)) if found else {},
    )


def chromium() -> str:
    """The browser's path."""
    found = shutil.which("chromium")
    assert found, "these tests open pages in Chromium; install it: apt-get install chromium"
    return found
