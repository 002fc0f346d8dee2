"""`medseg list KIND NAME` tells of each setting what the class accepts: key, default, values, note."""

from __future__ import annotations

from typing import Annotated, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import Field
from typer.testing import CliRunner

from medseg.config import Catalogue, NamedSettings, Settings, validate
from pipelines.command import app
from pipelines.listing import CATALOGUES, KINDS, _configs_of
from pipelines.reference import settings_of


class Wall(NamedSettings):
    """What the entries below have in common."""

    height: float = Field(2.5, gt=0)  # in metres


class Brick(Wall):
    name: Literal["brick"] = "brick"
    colours: tuple[Literal["red", "grey"], ...] = Field(("red",), min_length=1)


class Glass(Wall):
    name: Literal["glass"] = "glass"
    height: float = Field(3.0, gt=0, le=4)
    panes: int | None = Field(None, ge=1, multiple_of=2)  # null: as many as fit


WALLS = Catalogue[Wall]("walls", Wall, [Brick, Glass])


class House(Settings):
    """Not a choice among several."""

    walls: tuple[Annotated[Wall, WALLS], Annotated[Wall, WALLS]] = (Brick(), Glass(panes=4))
    size: tuple[int, ...]
    door: Annotated[Wall, WALLS] = Brick()


def test_a_setting_is_told_with_default_values_and_the_note_beside_it() -> None:
    assert [tuple(one) for one in settings_of(Glass)] == [
        ("height", "3.0", "number > 0 <= 4", "in metres"),
        ("panes", "null", "integer >= 1 multiple of 2 | null", "null: as many as fit"),
    ]
    assert [tuple(one) for one in settings_of(Brick)] == [
        ("height", "2.5", "number > 0", "in metres"),
        ("colours", "[red]", "[1 or more red | grey]", ""),
    ]
    assert [tuple(one) for one in settings_of(House)] == [
        ("walls", "[{name: brick}, {name: glass, panes: 4}]", "[2 brick | glass]", ""),
        ("size", "required", "[integer]", ""),
        ("door", "{name: brick}", "brick | glass", ""),
    ]


@pytest.mark.parametrize("kind", [*CATALOGUES, "settings"])
def test_every_setting_is_told_and_its_default_can_be_written_as_it_stands(kind: str) -> None:
    for name, config in _configs_of(kind).items():
        told = settings_of(config)
        fixed = {key for key, field in config.model_fields.items() if _is_fixed(field.annotation)}
        assert {one.key for one in told} == set(config.model_fields) - fixed
        if any(one.default == "required" for one in told):
            continue
        written = {one.key: yaml.safe_load(one.default) for one in told}
        try:
            default = config()
        except ValueError:  # keys that only together make sense, as the length of a training
            continue
        assert validate(config, written, name) == default


def test_the_command_shows_an_entry_and_refuses_what_it_does_not_know() -> None:
    run = CliRunner().invoke
    shown = run(app, ["list", "losses", "focal"]).output
    assert "gamma" in shown
    assert "Lin et al., ICCV 2017" in shown
    assert "did you mean 'focal'" in run(app, ["list", "losses", "focall"]).output
    assert "have no settings" in run(app, ["list", "metrics", "dice"]).output
    assert set(KINDS) >= {*CATALOGUES, "settings"}


def _is_fixed(annotation: object) -> bool:
    """Whether there is one value only, so that nobody needs to set it."""
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1
