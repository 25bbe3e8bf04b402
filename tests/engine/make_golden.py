"""
Record anew what profiles become: python -m tests.engine.make_golden

Writes golden/*.json (whole reports) and golden/profiles/*.json (the packaged profiles on every
machine); read the difference before you commit it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile

from gemma_serve.profile.chain import packaged_names
from tests.engine.packaged import GOLDEN, write_golden
from tests.engine.test_explain import CASES, report
from tests.engine.test_explain import GOLDEN as REPORTS


def main() -> None:
    """Write all of them, and remove those of profiles that are gone."""
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        for name, case in CASES.items():
            text = json.dumps(report(*case), indent=2) + "\n"
            (REPORTS / f"{name}.json").write_text(text, encoding="utf-8")
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for old in GOLDEN.glob("*.json"):
        old.unlink()
    for name in packaged_names():
        write_golden(name)


if __name__ == "__main__":
    main()
