"""Summaries of a data set whose scores are known by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation import Scores, Statistic, case_table, distance_table, score, summarise, summary_table
from medseg.geometry import Geometry
from medseg.labels import LabelSet
from medseg.volume import Segmentation


def test_a_statistic_leaves_out_what_is_undefined() -> None:
    found = Statistic.of([0.5, None, 1.0, 0.0, None])
    assert (found.n, found.mean, found.median, found.minimum, found.maximum) == (3, 0.5, 0.5, 0.0, 1.0)
    assert found.sd == pytest.approx(0.5)
    assert found.interval is not None


def test_a_statistic_of_one_or_no_value_claims_no_spread() -> None:
    assert Statistic.of([0.4]) == Statistic(1, 0.4, 0.4, None, 0.4, 0.4, None)
    assert Statistic.of([None]) == Statistic(0, None, None, None, None, None, None)


def test_means_over_cases_are_those_of_arithmetic(scores: Scores) -> None:
    core, rim, whole = summarise(scores).labels
    assert (core.name, rim.name, whole.name, whole.is_region) == ("core", "rim", "whole", True)
    assert core.statistics["dice"].mean == pytest.approx(2.5 / 3)
    assert core.statistics["dice"].median == 1
    assert rim.statistics["dice"].mean == pytest.approx(2 / 3)
    assert core.statistics["iou"].mean == pytest.approx((1 + 1 / 3 + 1) / 3)


def test_a_missed_label_lowers_dice_and_is_counted_where_distances_leave_it_out(scores: Scores) -> None:
    rim = summarise(scores).labels[1]
    assert (rim.absent, rim.missed, rim.spurious) == (0, 1, 0)
    assert (rim.statistics["dice"].n, rim.statistics["hd95"].n) == (3, 2)
    assert rim.statistics["hd95"].mean == 0


def test_the_foreground_is_the_mean_over_cases_of_means_over_labels(scores: Scores) -> None:
    foreground = summarise(scores).foreground
    assert foreground.statistics["dice"].mean == pytest.approx(2.25 / 3)
    assert foreground.statistics["dice"].minimum == 0.5
    assert foreground.statistics["accuracy"].mean == pytest.approx(1 - (36 + 36) / 500 / 3)


def test_pooled_ratios_are_ratios_of_sums(scores: Scores) -> None:
    summary = summarise(scores)
    core = summary.labels[0]
    assert core.pooled.dice == pytest.approx(2 * (36 + 18 + 36) / (6 * 36))
    assert core.pooled.iou == pytest.approx(90 / (36 + 54 + 36))
    assert summary.foreground.pooled.tp == 90 + 72


def test_confusion_is_summed_over_cases(scores: Scores) -> None:
    summary = summarise(scores)
    assert summary.confusion is not None
    assert summary.confusion_names == ("background", "core", "rim")
    assert summary.confusion.sum() == 3 * 500
    assert summary.confusion[1].tolist() == [18, 90, 0]  # the core's voxels
    assert summary.confusion[2].tolist() == [36, 0, 72]


def test_failed_cases_are_kept_and_counted_nowhere(scores: Scores) -> None:
    summary = summarise(scores)
    assert summary.cases == 3
    assert [one.case for one in summary.failed] == ["broken"]


def test_the_worst_cases_come_first(scores: Scores) -> None:
    assert [case.case for case in scores.worst_first()] == ["missed", "shifted", "good"]


def test_means_for_a_tracker_are_flat_and_finite(scores: Scores) -> None:
    means = summarise(scores).means()
    assert means["dice/foreground"] == pytest.approx(0.75)
    assert means["dice/rim"] == pytest.approx(2 / 3)
    assert all(np.isfinite(value) for value in means.values())


def test_no_case_at_all_gives_a_summary_that_says_so(scores: Scores) -> None:
    summary = summarise(Scores(scores.labels, (), scores.failed))
    assert (summary.cases, summary.foreground.statistics["dice"].n, summary.confusion) == (0, 0, None)
    assert summary.means() == {}
    assert [len(table(summary).rows) for table in (summary_table, distance_table)] == [4, 4]


def test_tables_show_means_intervals_and_who_was_missed(scores: Scores) -> None:
    overlap, distances = summary_table(summarise(scores)), distance_table(summarise(scores))
    for table in (overlap, distances):
        assert {len(row) for row in table.rows} == {len(table.headers)}
        assert [row[0] for row in table.rows] == ["core", "rim", "whole (region)", "foreground"]
    rim = dict(zip(overlap.headers, overlap.rows[1], strict=True))
    assert (rim["cases"], rim["Dice"], rim["pooled"]) == ("3", "0.667", "0.800")
    rim = dict(zip(distances.headers, distances.rows[1], strict=True))
    assert (rim["cases"], rim["HD95 mm"], rim["missed"]) == ("2", "0.00", "1")


def test_the_case_table_shows_failures_first_with_their_reason(scores: Scores) -> None:
    table = case_table(scores)
    assert [row[0] for row in table.rows] == ["broken", "missed", "shifted", "good"]
    assert {len(row) for row in table.rows} == {len(table.headers)}
    assert "file is damaged" in table.rows[0][-1]
    assert table.rows[1][-1] == "rim missed"
    assert [row[0] for row in case_table(scores, limit=2).rows] == ["broken", "missed"]


@pytest.mark.parametrize("kind", ["exclusive", "overlapping"])
def test_what_nobody_looked_for_is_neither_right_nor_wrong(kind: str) -> None:
    labels = LabelSet.model_validate(
        {
            "kind": kind,
            "labels": [{"name": "one", "value": 1}, {"name": "two", "value": 2}],
            "regions": {"both": ["one", "two"]},
        }
    )
    grid = Geometry.from_spacing((4, 1, 1), (1.0, 1.0, 1.0))

    def segmentation(values: list[int], annotated: tuple[str, ...] | None = None) -> Segmentation:
        array = np.array(values).reshape(4, 1, 1)
        stacked = array if kind == "exclusive" else np.stack([array == 1, array == 2])
        return Segmentation(stacked, grid, labels, annotated=annotated)

    found = score("a", segmentation([1, 2, 2, 0]), segmentation([1, 1, 0, 0], ("one",)))
    assert [(one.label, one.dice) for one in found.labels] == [("one", 2 / 3)]
    assert found.accuracy == 3 / 4
    whole = score("b", segmentation([1, 2, 2, 0]), segmentation([1, 2, 2, 0]))
    rows = {row.name: row.statistics["dice"] for row in summarise(Scores(labels, (found, whole))).labels}
    assert {name: (one.n, one.mean) for name, one in rows.items()} == {
        "one": (2, pytest.approx(5 / 6)), "two": (1, 1.0), "both": (1, 1.0)
    }  # fmt: skip
