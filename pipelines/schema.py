"""`medseg schema`: the JSON Schema of what people write by hand, so that an editor completes and checks it.

A YAML file names its schema for editors in its first line: `# yaml-language-server: $schema=experiment.schema.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medseg.config import Settings, suggestion
from medseg.errors import ConfigError
from pipelines.console import Console

KINDS = ("experiment", "dataset")


def schema(kind: str = "experiment", output: Path | None = None) -> dict[str, Any]:
    """Prints the schema of a config ("experiment") or a dataset.yaml ("dataset"), or writes it to a file."""
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_settings(kind).model_json_schema()}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    console = Console()
    if output is None:
        console.say(text)
    else:
        from medseg.io.atomic import atomic_write_text

        atomic_write_text(output, text + "\n")
        console.say(f"schema of {kind} written to {output}")
    return content


def _settings(kind: str) -> type[Settings]:
    if kind == "experiment":
        from medseg.experiment import ExperimentConfig

        return ExperimentConfig
    if kind == "dataset":
        from medseg.data.dataset import DatasetInfo

        return DatasetInfo
    raise ConfigError(f"medseg schema {kind}: no schema is called {kind!r}{suggestion(kind, KINDS)}")
