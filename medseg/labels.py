"""What the values of a label mean, in one place, so that no loss, metric or writer needs flags for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from medseg.config import Settings
from medseg.errors import LabelError

if TYPE_CHECKING:
    import torch

BACKGROUND, FOREGROUND = "background", "foreground"

_NEVER = -1e4  # a logit whose probability is 0 in any precision

# Colours are told apart in colour-blind vision: Okabe and Ito, "Color Universal Design", 2008, without black.
_PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


class CodedTerm(Settings):
    """A concept of a coding scheme, for instance SNOMED CT (`scheme="SCT"`): DICOM PS3.3 section 8."""

    value: str
    scheme: str
    meaning: str


class Label(Settings):
    """One structure: its name, the integer that stands for it, and the coded terms that DICOM SEG asks for."""

    name: str = Field(min_length=1)
    value: int = Field(ge=1)
    colour: tuple[int, int, int] | None = None  # RGB, 0 to 255
    category: CodedTerm = CodedTerm(value="123037004", scheme="SCT", meaning="Anatomical Structure")
    type: CodedTerm = CodedTerm(value="85756007", scheme="SCT", meaning="Tissue")
    pair: str | None = None  # the label that a left-right flip turns this one into


class LabelSet(Settings):
    """The structures of a data set and how they share the grid.

    exclusive: integers `(X, Y, Z)`, 0 is background, each voxel has one value; the network has one output for the
    background and one for each label, in the order listed, and a softmax over them.
    overlapping: booleans `(S, X, Y, Z)`, S labels in the order listed; one output a label, a sigmoid each.
    """

    kind: Literal["exclusive", "overlapping"] = "exclusive"
    labels: tuple[Label, ...] = Field(min_length=1)
    regions: Mapping[str, tuple[str, ...]] = {}  # name -> names of the labels that it unites
    ignore: int | None = None  # voxels of this value train and score nothing

    @model_validator(mode="after")
    def _consistent(self) -> LabelSet:
        names = self.names
        _refuse_twice("name", [BACKGROUND, *names, *self.regions])
        _refuse_twice("value", [*self.values, *([] if self.ignore is None else [self.ignore])])
        if self.kind == "overlapping" and self.ignore is not None:
            raise ValueError(f"ignore {self.ignore} needs exclusive labels: a boolean has no value left for it")
        if FOREGROUND in self.regions or (FOREGROUND in names and len(names) > 1):
            kind = "region" if FOREGROUND in self.regions else "label among others"
            raise ValueError(f"a {kind} cannot be called {FOREGROUND!r}, the name of the mean over labels; rename it")
        strangers = [name for members in self.regions.values() for name in members if name not in names]
        strangers += [label.pair for label in self.labels if label.pair is not None and label.pair not in names]
        if strangers:
            raise ValueError(f"{', '.join(strangers)} is no label; known: {', '.join(names)}")
        of = {label.name: label.pair for label in self.labels}
        lone = [f"{name!r} names {pair!r}" for name, pair in of.items() if pair is not None and of[pair] != name]
        if lone:
            raise ValueError(f"pairs go both ways, but {lone[0]}, which does not name it; correct `pair`")
        return self

    @property
    def is_exclusive(self) -> bool:
        return self.kind == "exclusive"

    @property
    def names(self) -> list[str]:
        """The labels' names, background left out."""
        return [label.name for label in self.labels]

    @property
    def values(self) -> list[int]:
        """The integers of an exclusive label in the order of the network's outputs: background first."""
        return [0, *(label.value for label in self.labels)]

    @property
    def channels(self) -> int:
        """K, the number of outputs that a network needs."""
        return len(self.labels) + (1 if self.is_exclusive else 0)

    @property
    def has_pairs(self) -> bool:
        """Whether a mirror from left to right turns some label into another."""
        return any(label.pair is not None for label in self.labels)

    @property
    def mirrored(self) -> list[int]:
        """For each network output, the one that takes its place where left and right are exchanged."""
        names = self.names
        pairs = [names.index(label.pair or label.name) for label in self.labels]
        return [0, *(pair + 1 for pair in pairs)] if self.is_exclusive else pairs

    @property
    def foreground(self) -> slice:
        """The network outputs that are labels, background left out."""
        return slice(1, None) if self.is_exclusive else slice(None)

    def colour(self, name: str) -> tuple[int, int, int]:
        """RGB of a label, 0 to 255: its own, or one of a palette that colour-blind readers tell apart."""
        index = self.names.index(name)
        return self.labels[index].colour or _PALETTE[index % len(_PALETTE)]

    def check(self, label: np.ndarray, where: str) -> None:
        """Raises LabelError where an array holds a value that the set does not know, naming the values."""
        allowed = [*self.values, *([self.ignore] if self.ignore is not None else [])] if self.is_exclusive else [0, 1]
        strangers = np.setdiff1d(np.unique(label), allowed)
        if strangers.size:
            shown = ", ".join(f"{value:g}" for value in strangers[:8].tolist()) + (" ..." if strangers.size > 8 else "")
            raise LabelError(
                f"{where}: label values {shown} are not in the label set {allowed}; "
                "correct the file, or list the value under labels in dataset.yaml"
            )

    def present(self, label: np.ndarray) -> list[str]:
        """The labels that have a voxel in a label array of this set's kind."""
        if self.is_exclusive:
            values = set(np.unique(label).tolist())
            return [one.name for one in self.labels if one.value in values]
        return [name for name, channel in zip(self.names, label, strict=True) if channel.any()]

    def mask(self, label: np.ndarray, name: str) -> np.ndarray:
        """Where a label or region lies, bool `(X, Y, Z)`, in a label array of this set's kind."""
        members = self.regions.get(name, (name,))
        indices = [self.names.index(member) for member in members]
        if self.is_exclusive:
            return np.isin(label, [self.labels[index].value for index in indices])
        return np.asarray(label[indices].any(axis=0))

    def one_hot(self, label_b1s: torch.Tensor) -> torch.Tensor:
        """`(B, 1, *S)` values or `(B, S, *S)` booleans -> float `(B, K, *S)`; an ignored voxel is 0 everywhere."""
        if not self.is_exclusive:
            return label_b1s.float()
        return (label_b1s == self._values_like(label_b1s)).float()

    def without_pairs(self) -> LabelSet:
        """The same labels, none of which a mirror turns into another."""
        return self.model_copy(update={"labels": tuple(one.model_copy(update={"pair": None}) for one in self.labels)})

    def exchanged(self, label_1s: torch.Tensor) -> torch.Tensor:
        """`(1, *S)` values or `(S, *S)` booleans with each label as its pair, as a mirror from left to right asks."""
        if not self.is_exclusive:
            return label_1s[self.mirrored]
        result = label_1s.clone()
        for value, index in zip(self.values, self.mirrored, strict=True):
            result[label_1s == value] = self.values[index]
        return result

    def counted(self, label_b1s: torch.Tensor) -> torch.Tensor | None:
        """Where voxels count, bool `(B, 1, *S)`, or None where all do."""
        return None if self.ignore is None else label_b1s[:, :1] != self.ignore

    def annotated(self, names: Sequence[str] | None) -> list[bool]:
        """For each network output whether it was looked for, by the names of those labels; None: all."""
        found = [names is None or name in names for name in self.names]
        return [True, *found] if self.is_exclusive else found

    def marginal(self, logits_bks: torch.Tensor, annotated_bk: torch.Tensor) -> torch.Tensor:
        """Logits for cases in which only some labels were looked for, bool `(B, K)`.

        What was not looked for may lie in what is marked as background: its probability is added to that of the
        background, and its own output, now certain, learns nothing (marginal loss: Shi et al., MedIA 2021). Where
        labels overlap, such an output learns nothing.
        """
        import torch

        shown = annotated_bk.view(*annotated_bk.shape, *([1] * (logits_bks.ndim - 2)))
        certain = logits_bks.masked_fill(~shown, _NEVER)
        if not self.is_exclusive:
            return certain
        apart = shown.clone()
        apart[:, 0] = False
        background = logits_bks.masked_fill(apart, float("-inf")).logsumexp(dim=1, keepdim=True)
        return torch.cat([background.to(certain.dtype), certain[:, 1:]], dim=1)

    def probabilities(self, logits_bks: torch.Tensor) -> torch.Tensor:
        """Logits `(B, K, *S)` -> probabilities of the same shape: softmax over K, or a sigmoid each."""
        return logits_bks.softmax(dim=1) if self.is_exclusive else logits_bks.sigmoid()

    def decide(self, probabilities_ks: torch.Tensor) -> torch.Tensor:
        """Probabilities or logits' softmax `(K, *S)` -> values `(*S)` int32, or bool `(S, *S)` at 0.5."""
        if not self.is_exclusive:
            return probabilities_ks > 0.5
        values = probabilities_ks.new_tensor(self.values).int()
        return values[probabilities_ks.argmax(dim=0)]

    def _values_like(self, label_b1s: torch.Tensor) -> torch.Tensor:
        """The values as `(1, K, 1, ...)`, ready to be compared with a label."""
        return label_b1s.new_tensor(self.values).view(1, -1, *([1] * (label_b1s.ndim - 2)))


def _refuse_twice(kind: str, found: Sequence[object]) -> None:
    twice = sorted({str(one) for one in found if found.count(one) > 1})
    if twice:
        raise ValueError(f"label {kind} {', '.join(twice)} is given twice; each stands for one thing")
