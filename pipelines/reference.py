"""The settings of one choice as a table, read from its class, so that what is documented is what is accepted."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml
from pydantic_core import PydanticUndefined

from medseg.config import NamedSettings, Settings

Schema = Mapping[str, Any]

_BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "multipleOf": "multiple of",
}


class Setting(NamedTuple):
    """One key: its default as YAML would write it, what it accepts, and the note beside it in the code."""

    key: str
    default: str
    values: str
    note: str


def settings_of(config: type[Settings]) -> list[Setting]:
    """The keys of a config class in order, without those of a single value, as the `name` by which it was chosen."""
    schema, notes = config.model_json_schema(), _notes(config)
    keys = [key for key in config.model_fields if "const" not in schema["properties"][key]]
    return [
        Setting(key, _default(config, key), _values(schema["properties"][key], schema), notes.get(key, ""))
        for key in keys
    ]


def _default(config: type[Settings], key: str) -> str:
    value = config.model_fields[key].get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    return yaml.safe_dump(_plain(value), default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    """A default as plain values; of settings, what differs from their own defaults, and the name."""
    if isinstance(value, NamedSettings):
        return {"name": value.name, **value.model_dump(mode="json", exclude_defaults=True)}
    if isinstance(value, Settings):
        return value.model_dump(mode="json", exclude_defaults=True)
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _values(part: Schema, whole: Schema) -> str:
    """What a piece of a JSON Schema accepts, in words."""
    if "$ref" in part:
        return _of_settings(whole["$defs"][part["$ref"].rpartition("/")[2]])
    choices = part.get("oneOf") or part.get("anyOf")
    if choices:
        return " | ".join(dict.fromkeys(_values(choice, whole) for choice in choices))
    if "const" in part or "enum" in part:
        return " | ".join(map(str, part.get("enum", [part.get("const")])))
    kind = str(part.get("type", "any"))
    if kind == "array":
        return _of_list(part, whole)
    bounds = [f"{sign} {part[word]}" for word, sign in _BOUNDS.items() if word in part]
    return " ".join(["mapping" if kind == "object" else kind, *bounds])


def _of_list(part: Schema, whole: Schema) -> str:
    least, most = part.get("minItems"), part.get("maxItems")
    number = f"{least} " if least is not None and least == most else f"{least} or more " if least else ""
    inside: Schema = part.get("items") or next(iter(part.get("prefixItems", ())), {})
    return f"[{number}{_values(inside, whole)}]"


def _of_settings(part: Schema) -> str:
    """A catalogue's entry by its name, other settings by their keys."""
    properties = part.get("properties", {})
    name = properties.get("name", {}).get("const")
    return str(name) if name else f"{{{', '.join(properties)}}}"


def _notes(config: type[Settings]) -> dict[str, str]:
    """The comments at the end of the fields' lines, those of base classes included."""
    notes: dict[str, str] = {}
    for owner in reversed(config.__mro__):
        if issubclass(owner, Settings) and owner is not Settings:
            notes |= _notes_of(owner)
    return notes


def _notes_of(owner: type[Settings]) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(owner))
    except (OSError, TypeError):  # another package may come without its source
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    fields = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AnnAssign)]
    return {
        field.target.id: comments[field.end_lineno]
        for field in fields
        if isinstance(field.target, ast.Name) and field.end_lineno in comments
    }
