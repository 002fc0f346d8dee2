"""The settings of a run's record, apart from what they build, so that reading them imports no MLflow."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from medseg.config import Settings

_SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")


class TrackingConfig(Settings):
    """Where a run is recorded.

    `store` is an MLflow tracking URI; None stands for an sqlite file in the output folder, artifacts beside it.
    """

    name: Literal["mlflow", "none"] = "mlflow"
    store: str | None = None
    experiment: str = Field(default="medseg", min_length=1)
    parent: str | None = None  # run id of the run that this one is a part of, as a fold of a cross-validation

    @field_validator("store")
    @classmethod
    def _known_scheme(cls, store: str | None) -> str | None:
        """MLflow 3 refuses plain folders, and only when the run begins; say so before any work."""
        if store is None or store == "databricks":
            return store
        scheme, colon, _ = store.partition(":")
        if not colon or scheme.split("+")[0] not in _SCHEMES:
            raise ValueError(f"{store!r} is no MLflow store; write sqlite:///folder/mlflow.db or https://server")
        return store
