"""What a prediction reaches that never looks at the image; started by the other verbs, and kept like a cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.experiment import read_experiment


def blind(experiment: Path, data_root: Path | None) -> dict[str, Any]:
    """Foreground Dice, for each validation case and in the mean, of the training cases' usual label of each place."""
    from medseg.evaluation import mean_of, usual_segmentation
    from medseg.metrics import MetricsConfig, mean_over_labels, score_case
    from pipelines.study import open_study

    study, overlap = open_study(read_experiment(experiment), data_root), MetricsConfig(distances=False)
    known = [study.read(case, verify=False)[2] for case in study.training]
    cases = dict[str, float | None]()
    for case in study.validation:
        _, _, truth = study.read(case, verify=False)
        cases[case.id] = mean_over_labels(score_case(case.id, usual_segmentation(known, truth), truth, overlap))
    mean = mean_of([cases])
    return {"cases": cases, "failed": [], "dice": None if mean is None else mean.value}
