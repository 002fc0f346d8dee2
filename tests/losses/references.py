"""Every loss by its definition: float64, lists of voxels and plain loops, nothing shared with the implementation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.special import expit, log_expit, log_softmax, softmax

from medseg.labels import LabelSet
from medseg.losses import (
    BoundaryCEConfig,
    BoundaryConfig,
    ClDiceConfig,
    CrossEntropyConfig,
    DiceCEConfig,
    DiceConfig,
    FocalConfig,
    FocalTverskyConfig,
    GeneralisedDiceConfig,
    HausdorffConfig,
    JaccardConfig,
    LossConfig,
    LovaszConfig,
    SumConfig,
    TopKConfig,
    TverskyConfig,
    UnifiedFocalConfig,
)


@dataclass(frozen=True)
class Given:
    """Logits, probabilities and truth `(B, K, *S)`, counted voxels `(B, *S)`, and which outputs are labels."""

    is_exclusive: bool
    logits: np.ndarray
    probability: np.ndarray
    truth: np.ndarray
    counted: np.ndarray

    @property
    def patches(self) -> range:
        return range(len(self.truth))

    @property
    def outputs(self) -> range:
        return range(self.truth.shape[1])

    @property
    def foreground(self) -> range:
        return self.outputs[1:] if self.is_exclusive else self.outputs

    def groups(self, batch: bool) -> list[list[int]]:
        """The patches that are looked at together."""
        return [list(self.patches)] if batch else [[patch] for patch in self.patches]

    def voxels(self, group: list[int], output: int) -> tuple[np.ndarray, np.ndarray]:
        """Probability and truth of one output, in the counted voxels of a group of patches."""
        where = self.counted[group]
        return self.probability[group, output][where], self.truth[group, output][where]


def reference(config: LossConfig, labels: LabelSet, logits: np.ndarray, label: np.ndarray) -> float:
    """The loss of logits `(B, K, *S)` in float64."""
    given = _given(labels, logits, label)
    match config:
        case DiceCEConfig():
            dice = _overlaps(given, config, 0.5, 0.5)
            return config.dice_weight * (1 - np.mean(dice)) + config.cross_entropy_weight * np.mean(_nll(given)[0])
        case SumConfig():
            return sum(term.weight * reference(term.loss, labels, logits, label) for term in config.terms)
        case CrossEntropyConfig():
            return _weighted_cross_entropy(given, config.weights)
        case TopKConfig():
            hardest = sorted(_nll(given)[0], reverse=True)
            return float(np.mean(hardest[: max(1, round(config.share * len(hardest)))]))
        case FocalConfig():
            return _focal(given, config.gamma, config.alpha)
        case DiceConfig():
            return 1 - float(np.mean(_overlaps(given, config, 0.5, 0.5)))
        case JaccardConfig():
            return 1 - float(np.mean(_overlaps(given, config, 1, 1)))
        case TverskyConfig():
            return 1 - float(np.mean(_overlaps(given, config, config.alpha, config.beta)))
        case FocalTverskyConfig():
            indices = _overlaps(given, config, config.alpha, config.beta)
            return float(np.mean([(1 - index) ** (1 / config.gamma) for index in indices]))
        case GeneralisedDiceConfig():
            return float(np.mean([_generalised_dice(given, config, group) for group in given.groups(config.batch)]))
        case LovaszConfig():
            return float(np.mean([_lovasz(given, group) for group in given.groups(config.batch)]))
        case UnifiedFocalConfig():
            return _unified_focal(given, config)
        case BoundaryConfig():
            return _boundary(given)
        case BoundaryCEConfig():
            return _boundary_cross_entropy(given, config)
        case HausdorffConfig():
            return _hausdorff(given, config.alpha)
        case ClDiceConfig():
            return _cldice(given, config)
    raise AssertionError(f"no reference for {config.name}; write one")


def _given(labels: LabelSet, logits: np.ndarray, label: np.ndarray) -> Given:
    logits = logits.astype(float)
    if not labels.is_exclusive:
        everywhere = np.ones_like(label[:, 0], dtype=bool)
        return Given(False, logits, expit(logits), label.astype(bool), everywhere)
    truth = np.stack([label[:, 0] == value for value in labels.values], axis=1)
    counted = label[:, 0] != (-1 if labels.ignore is None else labels.ignore)
    return Given(True, logits, softmax(logits, axis=1), truth, counted)


def _nll(given: Given) -> tuple[np.ndarray, np.ndarray]:
    """-log p(truth) of each counted voxel (and overlapping label), and whether the truth is a label there."""
    if given.is_exclusive:
        log_p, truth = np.moveaxis(log_softmax(given.logits, axis=1), 1, -1), np.moveaxis(given.truth, 1, -1)
        return -log_p[truth & given.counted[..., None]], ~truth[given.counted][:, 0]
    return -log_expit(np.where(given.truth, given.logits, -given.logits)).ravel(), given.truth.ravel()


def _weighted_cross_entropy(given: Given, weights: Any) -> float:
    terms, is_label = _nll(given)
    if weights is None:
        return float(np.mean(terms))
    if given.is_exclusive:
        by_voxel = np.moveaxis(given.truth, 1, -1)[given.counted] @ np.asarray(weights)
    else:
        inside = np.broadcast_to(np.reshape(weights, (1, -1, *[1] * (given.truth.ndim - 2))), given.truth.shape)
        by_voxel = np.where(is_label, inside.ravel(), 1.0)
    return float(np.average(terms, weights=by_voxel))


def _focal(given: Given, gamma: float, alpha: float | None) -> float:
    terms, is_label = _nll(given)
    weight = 1.0 if alpha is None else np.where(is_label, alpha, 1 - alpha)
    return float(np.mean(weight * (1 - np.exp(-terms)) ** gamma * terms))


def _index(p: np.ndarray, t: np.ndarray, alpha: float, beta: float, smooth: float) -> float:
    hit, wrong, missed = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
    return float((hit + smooth / 2) / (hit + alpha * wrong + beta * missed + smooth / 2))


def _overlaps(given: Given, config: Any, alpha: float, beta: float) -> list[float]:
    outputs = given.outputs if config.include_background else given.foreground
    pairs = [given.voxels(group, k) for group in given.groups(config.batch) for k in outputs]
    return [_index(p, t, alpha, beta, config.smooth) for p, t in pairs]


def _generalised_dice(given: Given, config: GeneralisedDiceConfig, group: list[int]) -> float:
    outputs = given.outputs if config.include_background else given.foreground
    pairs = [given.voxels(group, k) for k in outputs]
    sizes = [t.sum() for _, t in pairs]
    rarest = min((size for size in sizes if size), default=1)
    weights = [(rarest / size) ** 2 if size else 1.0 for size in sizes]
    shared = sum(w * (p * t).sum() for w, (p, t) in zip(weights, pairs, strict=True))
    total = sum(w * (p.sum() + t.sum()) for w, (p, t) in zip(weights, pairs, strict=True))
    return float(1 - (2 * shared + config.smooth) / (total + config.smooth))


def _lovasz(given: Given, group: list[int]) -> float:
    """Berman et al., equation 8: each error times what its voxel adds to the Jaccard loss of the set of mistakes."""
    costs = []
    for k in given.outputs:
        p, t = given.voxels(group, k)
        if given.is_exclusive and not t.any():
            continue
        logit = given.logits[group, k][given.counted[group]]
        errors = np.abs(t - p) if given.is_exclusive else np.maximum(0, 1 - logit * np.where(t, 1, -1))
        mistakes: set[int] = set()
        cost, before = 0.0, 0.0
        for voxel in np.argsort(-errors):
            mistakes.add(int(voxel))
            after = len(mistakes) / len(mistakes | set(np.flatnonzero(t).tolist()))
            cost, before = cost + errors[voxel] * (after - before), after
        costs.append(cost)
    return float(np.mean(costs)) if costs else 0.0


def _unified_focal(given: Given, config: UnifiedFocalConfig) -> float:
    terms, is_label = _nll(given)
    power = np.where(is_label & config.asymmetric, 0.0, config.gamma)
    balance = np.where(is_label, config.delta, 1 - config.delta)
    focal = np.mean(balance * (1 - np.exp(-terms)) ** power * terms)
    costs = []
    for group in given.groups(config.batch):
        sides = [(*given.voxels(group, k), True) for k in given.foreground]
        if given.is_exclusive:
            sides.append((*given.voxels(group, 0), False))
        else:
            sides += [(1 - p, 1 - t.astype(float), False) for p, t, _ in sides]
        for p, t, is_label_side in sides:
            missed = 1 - _index(p, t, 1 - config.delta, config.delta, config.smooth)
            costs.append(missed ** (1 - config.gamma if is_label_side or not config.asymmetric else 1))
    return float(config.weight * focal + (1 - config.weight) * np.mean(costs))


def other_side(mask: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """For each voxel the distance to the nearest counted one on the other side, by trying all; 0 where none is."""
    places = list(product(*(range(size) for size in mask.shape)))
    found = np.zeros(mask.shape)
    for here in places:
        others = [math.dist(here, there) for there in places if counted[there] and mask[there] != mask[here]]
        found[here] = min(others, default=0.0) if counted[here] else 0.0
    return found


def _boundary(given: Given) -> float:
    costs: list[float] = []
    for patch, k in product(given.patches, given.foreground):
        truth, counted = given.truth[patch, k], given.counted[patch]
        distance = other_side(truth, counted)
        to_boundary = np.where(distance > 0, distance - 0.5, 0.0)
        costs += (to_boundary * np.abs(given.probability[patch, k] - truth))[counted].tolist()
    return float(np.mean(costs))


def _boundary_cross_entropy(given: Given, config: BoundaryCEConfig) -> float:
    terms, weights = [], []
    for patch, k in product(given.patches, given.outputs):
        truth, counted = given.truth[patch, k], given.counted[patch]
        distance = other_side(truth, counted)
        near = np.where(distance > 0, np.exp(-((distance - 0.5) ** 2) / (2 * config.sigma**2)), 0.0)
        p = np.where(truth, given.probability[patch, k], 1 - given.probability[patch, k])
        there = counted & truth if given.is_exclusive else counted
        terms += (-np.log(p))[there].tolist()
        weights += (1 + config.w0 * near)[there].tolist()
    return float(np.average(terms, weights=weights))


def _hausdorff(given: Given, alpha: float) -> float:
    costs: list[float] = []
    for patch, k in product(given.patches, given.foreground):
        p, truth, counted = given.probability[patch, k], given.truth[patch, k], given.counted[patch]
        reach = other_side(p > 0.5, counted) ** alpha + other_side(truth, counted) ** alpha
        costs += (reach * (p - truth) ** 2)[counted].tolist()
    return float(np.mean(costs))


def skeleton(mask: np.ndarray, iterations: int) -> np.ndarray:
    """The soft skeleton of one patch (Shit et al., algorithm 1), by SciPy's grey morphology."""
    cross, cube = (ndimage.generate_binary_structure(mask.ndim, rank) for rank in (1, mask.ndim))

    def eroded(values: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.grey_erosion(values, footprint=cross, mode="nearest"))

    def thin(values: np.ndarray) -> np.ndarray:
        return np.maximum(0, values - ndimage.grey_dilation(eroded(values), footprint=cube, mode="nearest"))

    found = thin(mask)
    for _ in range(iterations):
        mask = eroded(mask)
        found = found + np.maximum(0, thin(mask) * (1 - found))
    return found


def _cldice(given: Given, config: ClDiceConfig) -> float:
    costs = []
    for patch, k in product(given.patches, given.foreground):
        p, t = (one[patch, k] * given.counted[patch].astype(float) for one in (given.probability, given.truth))
        of_p, of_t = skeleton(p, config.iterations), skeleton(t, config.iterations)
        precision = ((of_p * t).sum() + config.smooth) / (of_p.sum() + config.smooth)
        sensitivity = ((of_t * p).sum() + config.smooth) / (of_t.sum() + config.smooth)
        costs.append(1 - 2 / (1 / precision + 1 / sensitivity))
    return float(np.mean(costs))
