"""From a Triton model repository to a profile, and to what became of each setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gemma_serve.profile.check import EngineFields
from gemma_serve.triton.importing.choosing import Chosen, choose
from gemma_serve.triton.importing.code import import_code
from gemma_serve.triton.importing.config import Configuration, import_config
from gemma_serve.triton.importing.engine_args import import_engine_args
from gemma_serve.triton.importing.findings import Draft, Finding, Setting
from gemma_serve.triton.importing.model_id import Files, looks_like_gemma, put_model
from gemma_serve.triton.importing.profile_text import in_order, profile_text
from gemma_serve.triton.importing.reasons import ALIAS, PART
from gemma_serve.triton.importing.tensorrtllm import import_part
from gemma_serve.triton.repository import Repository

__all__ = ["Finding", "Imported", "import_model", "model_to_import"]

# Source: Triton's --http-port, --grpc-port and --metrics-port.
_PORTS = {"port": 8000, "grpc_port": 8001, "metrics_port": 8002}
_HOST_COMMENT = (
    "As Triton listens. No key is asked for unless GEMMA_SERVE_API_KEYS or api_keys_file says so."
)


@dataclass(frozen=True)
class Imported:
    """The profile that was made of a model, and what became of each setting."""

    model_name: str
    profile: dict[str, Any]
    text: str  # the profile as YAML
    findings: tuple[Finding, ...]


def model_to_import(repository: Repository, name: str | None) -> Chosen:
    """
    The model of a repository that is imported.

    Args:
        name: Its name; None takes the only one that can be served.

    Raises:
        ProfileError: there is none, or more than one.
    """
    return choose(repository, name, looks_like_gemma)


def import_model(
    chosen: Chosen, hf_model: str | None = None, engine_fields: EngineFields | None = None
) -> Imported:
    """
    Make a profile of a model.

    Args:
        hf_model: Hugging Face id or directory of the checkpoint; None takes what the files say.
        engine_fields: Fields of the installed vLLM's AsyncEngineArgs with the JSON Schema of their
            values; None leaves those of model.json unchecked.

    Raises:
        ProfileError: a file can't be read, or no profile can be made of what it says.
    """
    model, draft = chosen.model, Draft(engine_fields)
    files = Files(chosen)
    put_model(draft, files, hf_model)
    _put_name(draft, chosen)
    config = Configuration(draft, model, chosen.contract)
    import_config(config)
    _put_contract(draft, chosen)
    if files.engine_args is not None:
        import_engine_args(draft, model, files.engine_args)
    if model.backend == "python" and model.has(files.code_name):
        import_code(draft, files.code_file, files.code)
    for part in chosen.parts:
        import_part(config, part, PART)
    for alias in chosen.aliases:
        import_part(config, alias, ALIAS)
    _drop_others(draft, chosen)
    _put_server(draft)
    title = (
        f"Imported by gemma-serve import-triton: model {model.name} of the Triton model repository "
        f"{chosen.repository.name}."
    )
    profile = in_order(draft.values)
    text = profile_text(title, profile, draft.comments)
    return Imported(model.name, profile, text, tuple(draft.findings))


def _put_name(draft: Draft, chosen: Chosen) -> None:
    names: str | list[str] = chosen.model.name
    reason = "the name in the paths of Triton's clients"
    if chosen.aliases:
        names = [chosen.model.name, *(alias.name for alias in chosen.aliases)]
        reason += "; models beside it with the same tensors and engine are answered too"
    setting = Setting("(repository)", "model directory", chosen.model.name)
    draft.must_put(setting, ("served_model_name",), names, reason, "renamed")


def _put_contract(draft: Draft, chosen: Chosen) -> None:
    """Where the configuration names no backend, its files did."""
    if "contract" in draft.values.get("triton", {}):
        return
    setting = Setting("(repository)", "backend", chosen.model.backend)
    path, reason = ("triton", "contract"), "found by its files"
    draft.must_put(setting, path, chosen.contract.name, reason, "renamed")


def _drop_others(draft: Draft, chosen: Chosen) -> None:
    for name in chosen.others:
        reason = "one server serves one model; import it into a profile of its own, or leave it"
        draft.drop(Setting("(repository)", "other model", name), reason)
    model = chosen.model
    if (model.path / "configs").is_dir():
        reason = "custom configurations (--model-config-name) are not read"
        draft.drop(Setting("(repository)", "configs/", "..."), reason)
    if model.config_name == "config.pbtxt" and (model.path / "config.pbxt").exists():
        draft.drop(Setting("config.pbxt", "(the file)", "..."), "config.pbtxt is beside it")


def _put_server(draft: Draft) -> None:
    setting = Setting("(Triton)", "address", "every interface")
    path, reason = ("server", "host"), "as Triton listens; 127.0.0.1 keeps it on this machine"
    draft.must_put(setting, path, "0.0.0.0", reason, "kept")  # noqa: S104  # clients are elsewhere
    draft.comment(path, _HOST_COMMENT)
    for key, port in _PORTS.items():
        name = {"port": "--http-port", "grpc_port": "--grpc-port"}.get(key, "--metrics-port")
        setting = Setting("(Triton)", name, port)
        reason = "Triton's default; change it where your command line does"
        draft.must_put(setting, ("server", key), port, reason, "kept")
