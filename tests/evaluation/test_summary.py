"""Summaries of a data set whose scores are known by arithmetic."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from medseg.evaluation import FOREGROUND, Scores, Statistic, Table, case_table, score, summarise, summary_table
from medseg.labels import Label, LabelSet
from medseg.volume import Segmentation


def _phantoms() -> ModuleType:
    raise NotImplementedError
