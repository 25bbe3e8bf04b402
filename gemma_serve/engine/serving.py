"""Arguments of vLLM's serving objects: chat template, tool calls, thinking, adapters."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from gemma_serve.engine.settings import DEFAULT, Context, Derived, Setting
from gemma_serve.errors import ProfileError
from gemma_serve.gemma.family import TOOL_CALL_PARSERS, Generation


def serving_args(context: Context) -> Derived:
    """
    Arguments of the serving objects.

    Raises:
        ProfileError: chat.template names neither a file nor a packaged template.
    """
    yield from _chat_template(context)
    yield from _tool_calls(context)
    chat = context.profile.chat
    if chat.enable_thinking is not None:
        value = {"enable_thinking": chat.enable_thinking}
        origin = context.origin("chat.enable_thinking")
        reason = "the template's default; a request may differ"
        yield Setting("default_chat_template_kwargs", value, origin, reason)
    if lora := context.profile.lora:
        adapters = [{"name": name, "path": path} for name, path in lora.adapters.items()]
        reason = "clients choose one by its name as `model`"
        yield Setting("lora_modules", adapters, context.origin("lora.adapters"), reason)


def reasoning_args(context: Context) -> Derived:
    """The reasoning parser, which vLLM takes as an engine argument."""
    asked, family = context.profile.chat.reasoning_parser, context.checkpoint.family
    if asked:
        origin = context.origin("chat.reasoning_parser")
        yield Setting("reasoning_parser", asked, origin, "as the profile asks")
    elif family and family.reasoning_parser:
        reason = f"the format that {family.label} thinks in"
        yield Setting("reasoning_parser", family.reasoning_parser, DEFAULT, reason)


def packaged_templates() -> dict[str, Path]:
    """The chat templates that come with gemma-serve, by name."""
    folder = Path(str(resources.files("gemma_serve"))) / "chat" / "templates"
    return {file.stem: file for file in sorted(folder.glob("*.jinja"))}


def _chat_template(context: Context) -> Derived:
    asked, packaged = context.profile.chat.template, packaged_templates()
    origin = context.origin("chat.template")
    if asked:
        path = packaged.get(asked, Path(asked).expanduser())
        if not path.is_file():
            names = ", ".join(packaged) or "none"
            raise ProfileError(
                f"chat.template {asked!r} is neither a file nor a packaged template ({names}); "
                "name one of them, or leave it out for the checkpoint's own."
            )
        yield Setting("chat_template", str(path), origin, "as the profile asks")
    elif context.checkpoint.has_chat_template is False:
        yield _by_generation(context, packaged)


def _is_template_packaged(context: Context) -> bool:
    asked = context.profile.chat.template
    return asked in packaged_templates() if asked else context.checkpoint.has_chat_template is False


def _by_generation(context: Context, packaged: dict[str, Path]) -> Setting | str:
    generation = context.checkpoint.generation
    name = f"gemma{generation.value}" if generation else ""
    # The small ones of Gemma 4 have per-layer embeddings; the large ones' template differs.
    if generation is Generation.GEMMA_4 and not context.checkpoint.text.get(
        "hidden_size_per_layer_input"
    ):
        name = "gemma4_large"
    if name in packaged:
        reason = f"the checkpoint has none; this is {name}, packaged for its generation"
        return Setting("chat_template", str(packaged[name]), DEFAULT, reason)
    return (
        "The checkpoint has no chat template and none is packaged for its generation: "
        "chat requests will be refused; set chat.template."
    )


def _tool_calls(context: Context) -> Derived:
    family = context.checkpoint.family
    parser, origin = context.profile.chat.tool_call_parser, context.origin("chat.tool_call_parser")
    reason = "as the profile asks"
    if parser is None and family is not None:
        parser, origin = family.tool_call_parser, DEFAULT
        reason = f"the format that {family.label} calls tools in"
        if family.function_calling and _is_template_packaged(context):
            # FunctionGemma's own format needs its own template, which is not among the packaged.
            parser = TOOL_CALL_PARSERS.get(family.generation)
            reason = "the format that the packaged chat template asks for"
    if parser:
        yield Setting("tool_call_parser", parser, origin, reason)
        yield Setting("enable_auto_tool_choice", True, origin, "the model may call tools by itself")
    reason = "a model that must not call tools need not read of them"
    yield Setting("exclude_tools_when_tool_choice_none", True, DEFAULT, reason)
