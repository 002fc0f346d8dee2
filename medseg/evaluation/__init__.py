"""From the scores of cases to what an evaluation reports: summaries with intervals, tables and files."""

from medseg.evaluation.blind import usual_segmentation
from medseg.evaluation.bootstrap import bootstrap_interval
from medseg.evaluation.repeated import (
    CaseValues,
    RepeatedMean,
    common_cases,
    difference_of,
    mean_of,
    repeated_interval,
)
from medseg.evaluation.scores import FOREGROUND, CaseScores, FailedCase, Scores, score
from medseg.evaluation.summary import LabelSummary, Statistic, Summary, summarise
from medseg.evaluation.tables import Table, case_table, distance_table, summary_table
from medseg.evaluation.writing import summary_content, write_scores

__all__ = [
    "FOREGROUND",
    "CaseScores",
    "CaseValues",
    "FailedCase",
    "LabelSummary",
    "RepeatedMean",
    "Scores",
    "Statistic",
    "Summary",
    "Table",
    "bootstrap_interval",
    "case_table",
    "common_cases",
    "difference_of",
    "distance_table",
    "mean_of",
    "repeated_interval",
    "score",
    "summarise",
    "summary_content",
    "summary_table",
    "usual_segmentation",
    "write_scores",
]
