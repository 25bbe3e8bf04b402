"""
Lets a torchvision that was built for another torch import, by declaring the operators it misses.

PyPI's torchvision is a CUDA build: beside a CPU torch its C++ library does not load, and the import
dies with "operator torchvision::nms does not exist". vLLM's Gemma image models need the Python part
only. `scripts/setup.py` imports this module from a .pth file in each process of such a venv, so
it must cost nothing there: neither torch nor torchvision is imported before somebody asks.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# Holds the declarations: they end with the torch.library.Library that made them.
_declared: list[Any] = []


class TorchvisionFinder:
    """Finds `torchvision` as Python does, and has its operators declared before it runs."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # A question whether torchvision is there must not import torch: the loader does, later.
        spec = PathFinder.find_spec(name, path, target) if name == "torchvision" else None
        if spec is not None and spec.origin is not None:
            spec.loader = TorchvisionLoader(name, spec.origin)
        return spec


class TorchvisionLoader(SourceFileLoader):
    """Declares the missing operators, then runs torchvision as it is."""

    def exec_module(self, module: ModuleType) -> None:
        if TorchvisionFinder in sys.meta_path:
            sys.meta_path.remove(TorchvisionFinder)
        if not _native_library_loads(self.path):
            declare_missing_ops()
        super().exec_module(module)


def _native_library_loads(package_init: str) -> bool:
    """Tell whether torchvision brings its own operators: to declare those twice is an error."""
    from pathlib import Path

    import torch

    try:
        for library in Path(package_init).parent.glob("_C*.so"):
            torch.ops.load_library(library)
            return True
    except OSError:
        return False
    return False


def declare_missing_ops() -> None:
    """Declare what torchvision's Python code names at import; calling one still fails."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _declared.append(library)


def install() -> None:
    """Have the next import of torchvision in this process go through TorchvisionFinder."""
    if "torchvision" not in sys.modules and TorchvisionFinder not in sys.meta_path:
        sys.meta_path.insert(0, TorchvisionFinder)


install()
