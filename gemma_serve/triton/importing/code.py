"""The python backend's model.py: how it loads what it serves."""

from __future__ import annotations

from gemma_serve.triton.importing.findings import Draft, Setting
from gemma_serve.triton.importing.model_id import Code
from gemma_serve.triton.importing.precision import import_dtype
from gemma_serve.triton.importing.reasons import CODE, LOAD_KEYWORDS, UNKNOWN_LOAD_KEYWORD
from gemma_serve.triton.repository import Load

_DTYPES = ("torch_dtype", "dtype")


def import_code(draft: Draft, file: str, code: Code) -> None:
    """Write what the calls that load the model say into the draft; the rest is dropped."""
    if code.trouble:
        draft.drop(Setting(file, "(the file)", "..."), f"{code.trouble} {CODE}")
        return
    loads = code.facts.loads
    for load in loads:
        if load.is_adapter:
            reason = "name the adapter's directory in lora.adapters"
            where = f"{load.owner} on line {load.line}"
            draft.drop(Setting(file, where, load.model or "?"), reason)
        elif load.is_model:
            _import_load(draft, file, load)
    said = any(name in load.keywords for load in loads for name in _DTYPES)
    if any(load.is_model for load in loads) and not said:
        draft.change(
            Setting(file, "torch_dtype", "not said"),
            "transformers before 5 loaded float32 then; here it is bf16, and dtype: fp32 is the "
            "other",
        )
    draft.drop(Setting(file, "(the code)", "..."), CODE)


def _import_load(draft: Draft, file: str, load: Load) -> None:
    for name, written in load.keywords.items():
        setting = Setting(file, name, written)
        if draft.says(file, name):
            continue
        if name in _DTYPES:
            import_dtype(draft, setting)
        elif name == "revision":
            _import_revision(draft, setting)
        else:
            draft.drop(setting, LOAD_KEYWORDS.get(name, UNKNOWN_LOAD_KEYWORD))


def _import_revision(draft: Draft, setting: Setting) -> None:
    mistake = draft.put(setting, ("revision",), setting.value, "of the checkpoint", "kept")
    if mistake:
        draft.drop(setting, mistake)
