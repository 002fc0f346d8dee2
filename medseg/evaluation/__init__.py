"""From the scores of cases to what an evaluation reports: summaries with intervals, tables and files."""

from medseg.evaluation.bootstrap import bootstrap_interval
from medseg.evaluation.scores import FOREGROUND, CaseScores, FailedCase, Scores, score
from medseg.evaluation.summary import LabelSummary, Statistic, Summary, summarise
from medseg.evaluation.tables import Table, case_table, distance_table, summary_table
from medseg.evaluation.writing import summary_content, write_scores

__all__ = [
    "FOREGROUND",
    "CaseScores",
    "FailedCase",
    "LabelSummary",
    "Scores",
    "Statistic",
    "Summary",
    "Table",
    "bootstrap_interval",
    "case_table",
    "distance_table",
    "score",
    "summarise",
    "summary_content",
    "summary_table",
    "write_scores",
]
