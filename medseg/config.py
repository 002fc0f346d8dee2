"""Settings as plain, validated values: a typo is refused before any work, and a run can be written down whole."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, Union

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    GetCoreSchemaHandler,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails

from medseg.errors import ConfigError, MedsegError

S = TypeVar("S", bound="Settings")
_MANY, _FEW = 24, 8  # choices that an error message lists whole; how many it shows of more


class Settings(BaseModel):
    """Base of every config class: frozen, and strangers are refused.

    What validates it is built at its first use, not at import: only then may a catalogue ask other packages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _default_names(cls, content: Any) -> Any:
        """Where the keys of a choice are given without its name, the default one is meant."""
        if not isinstance(content, Mapping):
            return content
        defaults = {key: field.default for key, field in cls.model_fields.items()}
        nameless = {
            key: {"name": default.name, **value}
            for key, value in content.items()
            if isinstance(value, Mapping) and "name" not in value
            if isinstance(default := defaults.get(key), NamedSettings)
        }
        return {**content, **nameless}


class NamedSettings(Settings):
    """Base of a catalogue's entries: a subclass fixes `name` with `Literal["..."]` and a default."""

    name: str


E = TypeVar("E", bound=NamedSettings)


class Catalogue(Generic[E]):
    """The named choices of one part of the system, in the order in which they are listed.

    Used as an annotation, `Annotated[NetworkConfig, NETWORKS]`, it makes pydantic read the entry that `name` tells.
    Other packages join through the entry point group `medseg.<kind>`, each pointing at a class derived from `base`.
    They are loaded at first use, so that their modules may import ours, and be imported, in any order; one that cannot
    be loaded, or is no entry, is refused then: ConfigError names the package.
    """

    def __init__(self, kind: str, base: type[NamedSettings], entries: Sequence[type[E]]) -> None:
        self.kind, self.base = kind, base
        self._ours = _by_name(kind, entries)

    @cached_property
    def _entries(self) -> dict[str, type[E]]:
        """By name, ours first."""
        points = entry_points(group=f"medseg.{self.kind}")
        return _by_name(self.kind, [*self._ours.values(), *(_load(point, self.base) for point in points)])

    def __iter__(self) -> Iterator[tuple[str, type[E]]]:
        return iter(self._entries.items())

    def __getitem__(self, name: str) -> type[E]:
        if name not in self._entries:
            raise ConfigError(f"no entry of {self.kind} is called {name!r}{suggestion(name, self._entries)}")
        return self._entries[name]

    def names(self) -> list[str]:
        """What `name` may be."""
        return list(self._entries)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        tagged = tuple(Annotated[entry, Tag(name)] for name, entry in self._entries.items())
        union = Annotated[Union[tagged], Discriminator(_tag_of)] if len(tagged) > 1 else tagged[0]  # noqa: UP007
        return handler.generate_schema(union)


def _tag_of(value: Any) -> str | None:
    return value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)


def _by_name(kind: str, entries: Iterable[type[E]]) -> dict[str, type[E]]:
    named: dict[str, type[E]] = {}
    for entry in entries:
        name = entry.model_fields["name"].default
        if named.setdefault(name, entry) is not entry:
            raise ConfigError(f"two entries of {kind} are called {name!r}; uninstall or rename one")
    return named


# What the code of another package may raise while it is imported.
_FAILURES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError, MedsegError,
)  # fmt: skip


def _load(point: EntryPoint, base: type[NamedSettings]) -> type[Any]:
    """The class that an entry point names. Raises ConfigError where there is none, or it is no entry."""
    package = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    where, advice = f"entry point {point.name!r}{package} ({point.group})", "update or uninstall that package"
    try:
        entry = point.load()
    except _FAILURES as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{where} cannot be loaded ({problem}); {advice}") from error
    if not (isinstance(entry, type) and issubclass(entry, base)):
        raise ConfigError(f"{where} is {_short(entry)}, no class of {base.__name__}; {advice}")
    missing = sorted(getattr(entry, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(f"{where} lacks what {base.__name__} asks for: {', '.join(missing)}; {advice}")
    if not isinstance(entry.model_fields["name"].default, str):
        raise ConfigError(f"{where} has no name of its own, as name: Literal['x'] = 'x' gives one; {advice}")
    return entry


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key given twice instead of keeping the last."""


def _construct_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str | int | float | bool | None):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. Raises ConfigError where it is absent, unreadable or not a mapping."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text in UTF-8 (byte {error.start}); save it as UTF-8") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date like 2020-13-45
        raise ConfigError(f"{path}: is not valid YAML: {_yaml_problem(error)}; correct it") from error
    if content is None:
        raise ConfigError(f"{path}: is empty; see `medseg schema` for its keys")
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: holds {type(content).__name__}, not a mapping of keys to values; see `medseg schema`"
        )
    return content


def _yaml_problem(error: Exception) -> str:
    """What YAML says, in one line, without its name for a text that has none."""
    return " ".join(str(error).replace(' in "<unicode string>",', " at").split())


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, level by level; a changed `name` drops its siblings in `base`."""
    renamed = "name" in changes and "name" in base and changes["name"] != base["name"]
    merged: dict[str, Any] = {} if renamed else dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def apply_assignments(base: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """`base` after assignments like `training.max_minutes=10`, in order; the right side is read as YAML."""
    result = dict(base)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(f"--set {assignment!r}: write it as key.subkey=value")
        try:
            value: Any = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"--set {assignment!r}: {text!r} is not a valid value; quote it as YAML would") from error
        key, rest = parts[0], parts[1:]
        result[key] = _assign(result.get(key), rest, value)  # the file's own `name` is only a name: it drops nothing
    return result


def _assign(base: Any, parts: list[str], value: Any) -> Any:
    """`base` with one value set below it; a part that is a number picks an element of a list."""
    if not parts:
        return merge(base, value) if isinstance(base, Mapping) and isinstance(value, Mapping) else value
    key, rest = parts[0], parts[1:]
    if isinstance(base, list):
        if not key.isdigit() or int(key) >= len(base):
            raise ConfigError(
                f"--set ...{key}: the list has {len(base)} elements; number them from 0 to {len(base) - 1}"
            )
        index = int(key)
        return [*base[:index], _assign(base[index], rest, value), *base[index + 1 :]]
    mapping = base if isinstance(base, Mapping) else {}
    return merge(mapping, {key: _assign(mapping.get(key), rest, value)})


def validate(settings: type[S], content: Mapping[str, Any], where: str) -> S:
    """`content` as `settings`. Raises ConfigError that lists each wrong key, its value and the nearest valid choice."""
    try:
        return settings.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [_explain(settings, detail) for detail in details if not _is_echo(detail, details)]
        shown = problems[:5] + ([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])
        raise ConfigError(f"{where}: " + "; ".join(shown)) from error


def _is_echo(detail: ErrorDetails, details: Iterable[ErrorDetails]) -> bool:
    """Whether a list is called too short because its elements were refused, which is told of the elements."""
    place = detail["loc"]
    inside = (other["loc"] for other in details if len(other["loc"]) > len(place))
    return detail["type"] == "too_short" and any(loc[: len(place)] == place for loc in inside)


_TRIED_TYPE = re.compile(r"(constrained-)?(int|float|str|bool)|none|.+\[.+\]")
_WANTED = {"tuple_type": "must be a list", "model_type": "must be a mapping of keys to values"}


def _explain(settings: type[Settings], detail: ErrorDetails) -> str:
    """One problem in one line: key, value, what is expected."""
    keys, known = _place(settings, detail["loc"])
    key = ".".join(keys) or "the whole"
    value, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {key!r}{suggestion(keys[-1], known)}"
        case "missing":
            return f"key {key!r} is missing"
        case "union_tag_invalid":
            tags = [tag.strip(" '") for tag in str(context.get("expected_tags", "")).split(",")]
            return f"{key}.name: {context.get('tag')!r} is not known{suggestion(str(context.get('tag')), tags)}"
        case "union_tag_not_found":
            written = f"write it as {{name: {value}}}" if isinstance(value, str) else f"give {key}.name"
            return f"{key}: {_short(value)} has no name; {written}"
        case "literal_error":
            choices = [
                choice.strip(" '") for choice in str(context.get("expected", "")).replace(" or ", ", ").split(",")
            ]
            return f"{key}: {value!r} is not known{suggestion(str(value), choices)}"
        case "value_error":
            told = str(context.get("error", detail["msg"]))
            return f"{key}: {told}" if keys else told
        case "too_short" | "too_long":
            least, most = context.get("min_length"), context.get("max_length")
            bound = f"at least {least}" if most is None else f"at most {most}"
            return f"{key}: {_short(value)} is refused: the list must have {bound} elements"
        case kind if kind in _WANTED:
            return f"{key}: {_short(value)} is refused: it {_WANTED[kind]}"
        case _:
            return f"{key}: {_short(value)} is refused: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _place(settings: type[Settings], location: Sequence[int | str]) -> tuple[list[str], list[str]]:
    """The keys that lead to a problem, as `--set` takes them, and those that are valid beside the last.

    Walks the fields. Pydantic's location also holds the name of a catalogue's entry that was chosen, and the type that
    was tried where there are several: no keys.
    """
    keys, known = list[str](), list[str]()
    current: Any = settings
    for part in map(str, location):
        if isinstance(current, Catalogue) and part in current.names():
            current = current[part]
            continue
        if _TRIED_TYPE.fullmatch(part):
            continue
        keys.append(part)
        fields = current.model_fields if isinstance(current, type) and issubclass(current, BaseModel) else {}
        known = list(fields)
        if part in fields:
            found = [entry for entry in fields[part].metadata if isinstance(entry, Catalogue)]
            current = found[0] if found else _innermost(fields[part].annotation)
    return keys, known


def _innermost(annotation: Any) -> Any:
    """The Settings class or Catalogue inside `X | None`, `tuple[X, ...]`, `Annotated[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for entry in getattr(annotation, "__metadata__", ()):
        if isinstance(entry, Catalogue):
            return entry
    for argument in getattr(annotation, "__args__", ()):
        inner = _innermost(argument)
        if inner is not None:
            return inner
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def suggestion(wrong: str, choices: Iterable[str]) -> str:
    """ "; did you mean 'x'? known: ..." for the end of an error message; of many choices, those like `wrong`."""
    known = list(choices)
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    shown = known if len(known) <= _MANY else sorted(difflib.get_close_matches(wrong, known, n=_FEW, cutoff=0))
    more = f" and {len(known) - len(shown)} more" if len(shown) < len(known) else ""
    return f"{meant}{' known: ' if near else '; known: '}{', '.join(shown)}{more}" if known else meant
