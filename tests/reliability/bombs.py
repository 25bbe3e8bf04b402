"""The tables of class E: structured outputs that can't be, or would take all time or memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.api.test_structured_output_bounds import SLOW, doubling, optional

Named = Mapping[str, Any]
TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


def nested(levels: int) -> dict[str, Any]:
    """An array of arrays, so deep."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels - 1):
        schema = {"type": "array", "items": schema}
    return schema


def ring(length: int) -> dict[str, Any]:
    """Definitions that each name the next one, and the last one the first."""
    parts = {f"d{n}": {"$ref": f"#/$defs/d{(n + 1) % length}"} for n in range(length)}
    return {"$defs": parts, "$ref": "#/$defs/d0"}


def pairs(levels: int) -> dict[str, Any]:
    """Objects that hold the one below them twice: 2^levels when they are written out."""
    parts: dict[str, Any] = {"d0": TEXT}
    for level in range(1, levels + 1):
        below = {"$ref": f"#/$defs/d{level - 1}"}
        both = {"a": below, "b": below}
        parts[f"d{level}"] = {"type": "object", "properties": both, "required": ["a", "b"]}
    return {"$defs": parts, "$ref": f"#/$defs/d{levels}"}


def _string(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


def _array(**more: Any) -> dict[str, Any]:
    return {"type": "array", "items": WHOLE, **more}


def _object(**more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": TEXT}, **more}


# --- JSON Schemas: those that must be refused, and those that xgrammar's version decides about

BAD_SCHEMAS: Named = {
    "itself": {"$ref": "#"},
    "itself by a definition": ring(1),
    "two of each other": ring(2),
    "a ring of 100": ring(100),
    "either of itself": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
    "counted twice": SLOW,
    "counted twice in a property": _object(properties={"a": SLOW}, required=["a"]),
    "33 levels": nested(33),
    "60 levels": nested(60),
    "100,000 values": {"enum": [f"v{n}" for n in range(100_000)]},
    "70,000 bytes": _string(description="x" * 70_000),
    "no value": {"enum": []},
    "no alternative": {"anyOf": []},
    "an unknown type": {"type": "wizard"},
    "a type that is a number": {"type": 5},
    "multipleOf": {"type": "integer", "multipleOf": 3},
    "uniqueItems": _array(uniqueItems=True),
    "contains": _array(contains=WHOLE),
    "a pattern with a length": _string(pattern="a*", maxLength=5),
    "more items than there may be": _array(minItems=2, maxItems=1),
    "a minimum above the maximum": {"type": "integer", "minimum": 2, "maximum": 1},
    "a longer text than there may be": _string(minLength=2, maxLength=1),
    "a pattern that is none": _string(pattern="("),
    "a definition that is not there": {"$ref": "#/$defs/none"},
    "a $ref that is a number": {"$ref": 1},
    "properties that are a list": _object(properties=["a"]),
    "items that are a number": _array(items=5),
    "values that are a text": {"enum": "abc"},
    "half an item": _array(minItems=1.5),
}
ODD_SCHEMAS: Named = {
    "a schema elsewhere": {"$ref": "http://127.0.0.1:1/schema.json"},
    "a schema in a file": {"$ref": "file:///etc/passwd"},
    # Every token of them may be followed by another: they end with max_tokens.
    "an object that needs itself": _object(properties={"a": {"$ref": "#"}}, required=["a"]),
    "an array of at least one of itself": _array(items={"$ref": "#"}, minItems=1),
    "fewer than no items": _array(minItems=-1),
    "an array of itself": _array(items={"$ref": "#"}),
    "further members of itself": {"type": "object", "additionalProperties": {"$ref": "#"}},
    "all of itself": {"allOf": [{"$ref": "#"}, TEXT]},
    "not itself": {"not": {"$ref": "#"}},
    "5,000 values": {"enum": [f"v{n}" for n in range(5000)]},
    "30 long values": {"enum": [str(n) * 2000 for n in range(1, 31)]},
    "a constant of 60,000 characters": {"const": "x" * 60_000},
    "10^9 items": _array(minItems=10**9),
    "at most 10^9 items": _array(maxItems=10**9),
    "10^9 characters": _string(minLength=10**9),
    "at most 10^9 characters": _string(maxLength=10**9),
    "10^9 members": {"type": "object", "minProperties": 10**9},
    "at most 10^9 members": {"type": "object", "maxProperties": 10**9},
    "2^63 - 1 characters": _string(maxLength=2**63 - 1),
    "a range of 2 x 10^18": {"type": "integer", "minimum": -(10**18), "maximum": 10**18},
    "a range of fractions": {"type": "number", "minimum": -1e300, "maximum": 1e-300},
    "doubling": doubling(25),
    "doubling without oneOf": pairs(25),
    "1,000 optional members": optional(1000),
    "1,000 needed members": optional(1000) | {"required": [f"p{n}" for n in range(1000)]},
    "500 alternatives of objects": {"anyOf": [optional(3) | {"title": str(n)} for n in range(500)]},
    "32 levels": nested(32),
    "a name of 30,000 characters": _object(properties={"x" * 30_000: TEXT}),
    "a zero byte in a name": _object(properties={"a\0b": TEXT}, required=["a\0b"]),
    "members by a pattern": {"type": "object", "patternProperties": {"(a+)+b": TEXT}},
    "a condition": {"if": _object(), "then": TEXT, "else": {"$ref": "#"}},
    "every type at once": {"type": ["string", "integer", "object", "array", "null", "boolean"]},
    "a date of no calendar": _string(format="date-time", pattern="^[0-9]{10}$"),
}

# --- regular expressions

BAD_REGEXES: Named = {
    "an open group": "(",
    "an open class": "[a",
    "an open name": "(?P<a",
    "nothing to repeat": "*a",
    "a class the wrong way round": "[z-a]",
    "an escape of nothing": "a\\",
    "no character": "[^\\s\\S]",
    "counted twice": "(.{0,9999}){9999}",
    "counted twice, at most": "(.{0,9999}){1,9998}",
    "counted thrice, any": "((.{0,999}){0,999}){0,999}",
    "4,097 characters": "a" * 4097,
    "a lone surrogate": "\ud800",
    "a list": ["a"],
    "a number": 5,
}
ODD_REGEXES: Named = {
    "nested plus": "(a+)+b",
    "nested star": "(a*)*b",
    "twice the same": "(a|a)*b",
    "once or twice": "(a|aa)+b",
    "anything of anything": "(.*)*",
    "20 times anything and a": "(.*a){20}",
    "nothing or anything": "^(|.*)$",
    "nothing": "",
    "1,000 optional": "(a?){1000}a{1000}",
    "10^6 times": "a{1000000}",
    "2^31 - 1 times": "a{0,2147483647}",
    "10^20 times": "a{99999999999999999999}",
    "fewer than before": "a{5,2}",
    "counted thrice": "((a{1,99}b{1,99}){1,99}c){1,99}",
    "84 alternatives": "(" + "|".join("a" * n for n in range(1, 85)) + ")*",
    "4,096 characters": "[ab]" * 1024,
    "500 groups": "(" * 500 + "a" + ")" * 500,
    "2,000 groups": "(" * 2000 + "a" + ")" * 2000,
    "a zero byte": "a\0b",
    "a zero byte by its name": "a\\x00b",
    "a class of a letter's kind": "\\p{L}+",
    "a class of all letters": "[\\w\\u00c0-\\uffff]{1,500}",
    "a class beyond the first plane": "[\U00010000-\U0010ffff]{1,100}",
    "a letter beyond Unicode": "\\u{110000}",
    "looking ahead": "(?=a)b",
    "looking behind": "(?<=a)b",
    "the same again": "(a)\\1",
    "without case": "(?i)abc",
}

# --- grammars, and structural tags in both of vLLM's forms

BAD_GRAMMARS: Named = {
    "an endless rule": "root ::= root",
    "two endless rules": "root ::= a\na ::= b\nb ::= a",
    "an open group": "root ::= (",
    "an open text": 'root ::= "a',
    "an unknown rule": "root ::= nobody",
    "no root": 'other ::= "a"',
    "only a comment": "# nothing",
    "70,000 bytes": 'root ::= "a"' + "\n#" * 35_000,
    "a JSON Schema": '{"type": "object"}',
    "an object": {"root": "a"},
}
ODD_GRAMMARS: Named = {
    "ambiguous": 'root ::= s\ns ::= s s | "a" | ""',
    "itself first": 'root ::= root "a" | "a"',
    "10^6 times": 'root ::= "a"{1000000}',
    "counted twice": 'root ::= ("a"{1,999}){1,999}',
    "3,000 rules": "\n".join(["root ::= r0", *(f"r{n} ::= r{n + 1}" for n in range(3000))])
    + '\nr3000 ::= "a"',
    "20,000 groups": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000,
    "a zero byte": 'root ::= "a\\x00b"',
    "every character": "root ::= [\\x00-\\U0010ffff]+",
    "Lark": 'start: "a" | start start',
    "Lark from elsewhere": "%import common.WORD\nstart: WORD",
}


def _tag(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tag", "begin": "<a>", "content": content, "end": "</a>", **more}


BAD_TAGS: Named = {
    "no format": {},
    "an unknown format": {"format": {"type": "wizard"}},
    "a schema that is too slow": {"format": {"type": "json_schema", "json_schema": SLOW}},
    "a schema of itself": {"format": _tag({"type": "json_schema", "json_schema": {"$ref": "#"}})},
    "no triggers": {"structures": [{"begin": "<a>", "schema": TEXT, "end": "</a>"}]},
    "a tag without an end": {"format": {"type": "tag", "begin": "<a>"}},
    "33 levels": {"format": {"type": "json_schema", "json_schema": nested(33)}},
}
ODD_TAGS: Named = {
    "no structures": {"structures": [], "triggers": []},
    "an empty beginning": {"format": _tag({"type": "any_text"}, begin="", end="")},
    "500 structures": {
        "structures": [
            {"begin": f"<a{n}>", "schema": {"type": "object"}, "end": "</a>"} for n in range(500)
        ],
        "triggers": ["<a"],
    },
    "a regular expression": {"format": _tag({"type": "regex", "pattern": "(.{0,9999}){99}"})},
}

# --- whatever else may stand there

BAD_KINDS: Named = {
    "json_object false": {"json_object": False},
    "an empty schema": {"json": ""},
    "a schema that is no JSON": {"json": "{"},
    "no choices": {"choice": []},
    "a choice that is a number": {"choice": [1]},
    "two kinds": {"regex": "a", "choice": ["a"]},
    "an unknown kind": {"wizard": "a"},
    "no kind": {},
    "a list": [],
    "text": "json",
}
