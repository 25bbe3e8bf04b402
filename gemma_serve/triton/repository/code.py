"""What a python backend's model.py loads, found in its syntax tree; the file is never run."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gemma_serve.errors import ProfileError

# Callables that load a model, and where among their arguments its name stands.
_LOADERS = {"from_pretrained": 0, "pipeline": 1, "LLM": 0, "AsyncEngineArgs": 0, "EngineArgs": 0}
_MODEL_KEYWORDS = ("pretrained_model_name_or_path", "model", "model_id")
_MODEL_VARIABLE = re.compile(
    r"(?:hf_|huggingface_|base_|default_)?(?:model|checkpoint)(?:_(?:id|name|path|dir|checkpoint))"
    r"|checkpoint|pretrained_model_name_or_path",
    re.IGNORECASE,
)
_NOT_THE_MODEL = re.compile(r"Tokenizer|Processor|Config|FeatureExtractor")
_ADAPTER = re.compile(r"Peft")


@dataclass(frozen=True)
class Load:
    """A call that loads something: `AutoModelForCausalLM.from_pretrained(...)`."""

    line: int
    owner: str  # the class, or the function
    model: str | None  # None: not a string that stands in the file
    keywords: Mapping[str, str]  # as they are written; strings without their quotes

    @property
    def is_adapter(self) -> bool:
        """Whether it loads a LoRA adapter."""
        return bool(_ADAPTER.search(self.owner))

    @property
    def is_model(self) -> bool:
        """Whether it loads the model itself, not its tokenizer or its configuration."""
        return not self.is_adapter and not _NOT_THE_MODEL.search(self.owner)


@dataclass(frozen=True)
class Constant:
    """A variable named like a model, and the string that it is given."""

    line: int
    name: str
    value: str


@dataclass(frozen=True)
class CodeFacts:
    """What a model.py says about what it loads."""

    loads: tuple[Load, ...] = ()
    constants: tuple[Constant, ...] = ()
    strings: frozenset[str] = frozenset()


def read_code(text: str) -> CodeFacts:
    """
    Read a model.py.

    Raises:
        ProfileError: it is not Python that can be parsed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes, which are not ours to mend
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        cause = getattr(error, "msg", None) or "too deep, or with a NUL"
        line = getattr(error, "lineno", None)
        where = f" on line {line}" if line else ""
        raise ProfileError(f"It is not valid Python ({cause}{where}).") from None
    nodes = list(ast.walk(tree))
    constants = tuple(_constants(nodes))
    values: dict[str, set[str]] = {}
    for constant in constants:
        values.setdefault(constant.name, set()).add(constant.value)
    # A variable that is given different strings could hold any of them.
    names = {name: next(iter(each)) for name, each in values.items() if len(each) == 1}
    return CodeFacts(
        tuple(sorted(_loads(nodes, names), key=lambda load: load.line)),
        tuple(constant for constant in constants if _MODEL_VARIABLE.fullmatch(constant.name)),
        frozenset(
            n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ),
    )


def _constants(nodes: list[ast.AST]) -> Iterator[Constant]:
    for node in nodes:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        text = _text(value, {})
        if text is None:
            continue
        for target in targets:
            if name := _name(target):
                yield Constant(node.lineno, name, text)


def _loads(nodes: list[ast.AST], names: Mapping[str, str]) -> Iterator[Load]:
    for node in nodes:
        if not isinstance(node, ast.Call) or (function := _name(node.func)) not in _LOADERS:
            continue
        keywords = {word.arg: word.value for word in node.keywords if word.arg}
        position = _LOADERS[function]
        places = [keywords[word] for word in _MODEL_KEYWORDS if word in keywords]
        places += node.args[position : position + 1]
        model = _text(places[0], names) if places else None
        written = {
            word: _written(value, names)
            for word, value in keywords.items()
            if word not in _MODEL_KEYWORDS
        }
        yield Load(node.lineno, _owner(node.func) or function, model, written)


def _owner(function: ast.expr) -> str | None:
    return _name(function.value) if isinstance(function, ast.Attribute) else None


def _name(node: ast.expr) -> str | None:
    """The last part of a dotted name: `self.model_id` is model_id."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def _text(node: ast.expr, names: Mapping[str, str]) -> str | None:
    """The string that an expression is, or is by default: `os.environ.get("MODEL", "...")`."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.BoolOp):
        return next((text for each in node.values if (text := _text(each, names))), None)
    if isinstance(node, ast.Call) and _name(node.func) in ("get", "getenv"):
        return _text(node.args[1], names) if len(node.args) == 2 else None
    return names.get(_name(node) or "")


def _written(node: ast.expr, names: Mapping[str, str]) -> str:
    text = _text(node, names)
    if text is not None:
        return text
    try:
        return ast.unparse(node)
    except RecursionError:
        return "..."
