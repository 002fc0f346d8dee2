"""Settings are read strictly, changed predictably, and a slip of the keyboard is answered with the right word."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from medseg.config import (
    Catalogue,
    NamedSettings,
    Settings,
    apply_assignments,
    merge,
    read_yaml,
    suggestion,
    validate,
)
from medseg.errors import ConfigError


class Shape(NamedSettings):
    """What the entries below have in common."""


class Circle(Shape):
    name: Literal["circle"] = "circle"
    radius: float = 1.0


class Square(Shape):
    name: Literal["square"] = "square"
    edge: float = 1.0


SHAPES = Catalogue[Shape]("shapes", Shape, [Circle, Square])


class Drawing(Settings):
    title: str
    scale: float = 1.0
    mode: Literal["line", "fill"] = "line"
    shape: Annotated[Shape, SHAPES] = Circle()
    more: tuple[Annotated[Shape, SHAPES], ...] = ()
    axes: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1), min_length=2)
    width: Annotated[int, Field(ge=1)] | tuple[int, ...] = 1


def test_merging_goes_level_by_level_and_changes_neither() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": [1, 2]}
    assert merge(base, {"a": {"c": 3}, "d": [9]}) == {"a": {"b": 1, "c": 3}, "d": [9]}
    assert base == {"a": {"b": 1, "c": 2}, "d": [1, 2]}


def test_another_name_drops_its_siblings_and_the_same_keeps_them() -> None:
    base = {"shape": {"name": "circle", "radius": 2}}
    assert merge(base, {"shape": {"name": "square"}}) == {"shape": {"name": "square"}}
    assert merge(base, {"shape": {"name": "circle", "extra": 1}})["shape"] == {
        "name": "circle",
        "radius": 2,
        "extra": 1,
    }


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["scale=2"], {"scale": 2}),
        (["shape.radius=3"], {"shape": {"name": "circle", "radius": 3}}),
        (["shape.name=square"], {"shape": {"name": "square"}}),
        (["shape.name=square", "shape.edge=4"], {"shape": {"name": "square", "edge": 4}}),
        (["more.0.radius=5"], {"more": [{"name": "circle", "radius": 5}, {"name": "square"}]}),
        (["more=[]"], {"more": []}),
        (["new.deep.key='7'"], {"new": {"deep": {"key": "7"}}}),
        (["title=null"], {"title": None}),
        (["title=a=b"], {"title": "a=b"}),
    ],
)
def test_assignments_set_what_they_name(assignments: list[str], expected: dict[str, object]) -> None:
    base = {
        "title": "t",
        "shape": {"name": "circle", "radius": 1},
        "more": [{"name": "circle", "radius": 1}, {"name": "square"}],
    }
    assert apply_assignments(base, assignments) == {**base, **expected}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("scale", "write it as key.subkey=value"),
        ("a..b=1", "write it as key.subkey=value"),
        ("a=[1", "is not a valid value"),
        ("more.2.radius=1", "the list has 1 elements"),
        ("more.x=1", "the list has 1 elements"),
        ("a={b: 1, b: 2}", "is not a valid value"),
    ],
)
def test_assignments_that_mean_nothing_are_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_assignments({"more": [{"name": "circle"}]}, [assignment])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "key 'a' is given twice"),
        ("a:\n  b: 1\n  b: 2\n", "key 'b' is given twice"),
        ("- 1\n", "holds list, not a mapping"),
        ("", "is empty"),
        ("a: [1\n", "is not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        ("? [1, 2]\n: 3\n", "is not plain text"),
        ("a: 2020-13-45\n", "is not valid YAML"),
    ],
)
def test_yaml_that_is_not_plain_is_refused_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"c\.yaml: .*{message}"):
        read_yaml(path)


def test_yaml_that_is_absent_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "absent.yaml")
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="is not text in UTF-8"):
        read_yaml(tmp_path / "b.yaml")


def test_keys_without_a_name_are_those_of_the_default() -> None:
    assert validate(Drawing, {"title": "t", "shape": {"radius": 3}}, "here").shape == Circle(radius=3)
    with pytest.raises(ConfigError, match=r"unknown key 'shape\.edge'; known: name, radius"):
        validate(Drawing, {"title": "t", "shape": {"edge": 3}}, "here")


def test_a_name_chooses_the_entry_of_a_catalogue() -> None:
    drawing = validate(Drawing, {"title": "t", "shape": {"name": "square", "edge": 2}}, "here")
    assert drawing.shape == Square(edge=2)
    assert validate(Drawing, drawing.model_dump(), "again") == drawing


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"titel": "t"}, "unknown key 'titel'; did you mean 'title'"),
        ({}, "key 'title' is missing"),
        ({"title": "t", "shape": {"name": "sqare"}}, "shape.name: 'sqare' is not known; did you mean 'square'"),
        ({"title": "t", "more": [{"radius": 1}]}, r"give more\.0\.name"),
        ({"title": "t", "shape": {"name": "circle", "raduis": 1}}, "did you mean 'radius'"),
        ({"title": "t", "more": [{"name": "square", "egde": 1}]}, "did you mean 'edge'"),
        ({"title": "t", "mode": "fil"}, "mode: 'fil' is not known; did you mean 'fill'"),
        ({"title": "t", "more": [{"name": "square", "egde": 1}]}, r"unknown key 'more\.0\.egde'"),
        ({"title": "t", "shape": {"name": "circle", "radius": "big"}}, r": shape\.radius: 'big' is refused"),
        ({"title": "t", "shape": "circle"}, r"shape: 'circle' has no name; write it as \{name: circle\}"),
        ({"title": "t", "shape": {"name": "circle", "x": 1}}, "unknown key 'shape.x'; known: name, radius"),
        ({"title": "t", "more": {"name": "circle"}}, "more: {'name': 'circle'} is refused: it must be a list$"),
        ({"title": "t", "axes": [0]}, r"axes: \[0\] is refused: the list must have at least 2 elements$"),
        ({"title": "t", "axes": [0, -1]}, "here: axes.1: -1 is refused: [^;]*$"),
        ({"title": "t", "width": [1, "x"]}, "here: width: .* width.1: 'x' is refused"),
        ({"title": "t", "scale": "big"}, "scale: 'big' is refused"),
        ({"title": "t", "scale": float("nan")}, "scale: nan is refused"),
    ],
)
def test_each_slip_is_named_with_the_nearest_choice(content: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        validate(Drawing, content, "here")
    assert str(caught.value).startswith("here: ")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Circle().radius = 2  # type: ignore[misc]


def test_suggestions_list_all_choices_and_name_a_near_one() -> None:
    assert suggestion("dcie", ["dice", "focal"]) == "; did you mean 'dice'? known: dice, focal"
    assert suggestion("xyz", ["dice", "focal"]) == "; known: dice, focal"
    assert suggestion("xyz", []) == ""


def test_a_catalogue_refuses_two_entries_of_one_name_and_strange_names() -> None:
    class Round(Shape):
        name: Literal["circle"] = "circle"

    with pytest.raises(ConfigError, match="two entries of shapes are called 'circle'"):
        Catalogue[Shape]("shapes", Shape, [Circle, Round])
    with pytest.raises(ConfigError, match="no entry of shapes is called 'cirle'; did you mean 'circle'"):
        SHAPES["cirle"]
    assert SHAPES.names() == ["circle", "square"]


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module of an installed package, yet to be written, whose `Ring` is an entry of shapes."""
    metadata = tmp_path / "rings-2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rings\nVersion: 2.0\n")
    (metadata / "entry_points.txt").write_text("[medseg.shapes]\nround = the_rings:Ring\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "the_rings", raising=False)
    return tmp_path / "the_rings.py"


RING = f"""
from typing import Literal
from {__name__} import Shape

class Ring(Shape):
    name: Literal["ring"] = "ring"
"""


def test_an_entry_of_another_package_is_read_at_first_use(other: Path) -> None:
    """A settings class that names the catalogue, and the catalogue itself, are made before the package is looked at."""
    shapes = Catalogue[Shape]("shapes", Shape, [Circle])

    class Board(Settings):
        shape: Annotated[Shape, shapes]

    other.write_text(RING)
    assert validate(Board, {"shape": {"name": "ring"}}, "here").shape.name == "ring"
    assert shapes.names() == ["circle", "ring"]
    assert set(Board.model_json_schema()["$defs"]) == {"Circle", "Ring"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("1 / 0", "cannot be loaded (ZeroDivisionError: division by zero)"),
        ("import a_module_that_is_not_there", "cannot be loaded (ModuleNotFoundError: No module named"),
        ("Ring = (", "cannot be loaded (SyntaxError: "),
        ("", "cannot be loaded (AttributeError: "),
        ("Ring = 7", "is 7, no class of Shape"),
        ("from medseg.config import NamedSettings as Ring", "NamedSettings'>, no class of Shape"),
        (RING.replace(' = "ring"', ""), "has no name of its own"),
        (RING.replace('"ring"', '"circle"'), "two entries of shapes are called 'circle'"),
    ],
)
def test_a_broken_entry_of_another_package_is_refused_in_one_line_that_names_it(
    other: Path, source: str, says: str
) -> None:
    other.write_text(source)
    with pytest.raises(ConfigError) as caught:
        Catalogue[Shape]("shapes", Shape, [Circle]).names()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "two entries" in says or "entry point 'round' of rings 2.0 " in str(caught.value)


def test_of_many_choices_a_message_shows_those_alike_and_counts_the_rest() -> None:
    choices = [f"{kind}_{number}" for kind in ("lungs", "liver") for number in range(20)]
    told = suggestion("livr_7", choices)
    assert told.startswith("; did you mean 'liver_7'? known: liver_")
    assert told.endswith(" and 32 more")
    assert told.count(",") == 7
