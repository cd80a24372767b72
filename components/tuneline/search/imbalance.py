"""tuneline imbalance: what can be done about unequal classes, each way trained with the same seeds and compared.

Predictions are of the validation split, or pooled over folds of training and validation rows, so that a rare class has
more rows to be judged by. Thresholds are fitted on other rows than those whose answers they decide. A treatment one of
whose trainings is killed or diverges is left out, and the others go on; plain training, which all are compared with, is
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.artifacts import PreparedData, read_split
from tuneline.calibration import decide, fit_thresholds
from tuneline.config import Recipe
from tuneline.dimensions import BALANCE
from tuneline.errors import DivergedError, InputError
from tuneline.search.data import spread
from tuneline.search.engine import Engine
from tuneline.search.job import Result, TrialLost
from tuneline.search.paired import Interval, of_answers, of_ranking
from tuneline.search.report import signed
from tuneline.statistics import share

if TYPE_CHECKING:
    import numpy as np

PLAIN, THRESHOLDS = "none", "thresholds"
MOST_CLASSES = 20
"""With more of them, a threshold each is more than a validation split can tell."""
PARTS = 5
METRICS = {"macro_f1": "macro F1", "average_precision": "average precision", "recall": "recall"}


@dataclass
class Trained:
    """The answers of all trainings.

    Attributes:
        labels: [rows] of the held-out rows.
        parts: [rows], in which part each row's thresholds are applied; they are fitted on the others.
        probabilities: [seeds, rows, classes] by treatment.
        seconds: of training, by treatment, mean.
        names: of the classes.
        rare: of the classes that have a held-out row, the one with the fewest training rows.
        counts: training rows of each class.
        unheld: names of the classes that have no held-out row.
        lost: why a treatment was left out, by its name.
    """

    labels: np.ndarray
    parts: np.ndarray
    probabilities: dict[str, np.ndarray]
    seconds: dict[str, float]
    names: list[str]
    rare: int
    counts: list[int] = field(default_factory=list)
    unheld: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)


def refuse_unheld(data: Sequence[Path], metric: str) -> None:
    """Refuse, before hours of training, a metric of the rarest class where none of its rows is held out.

    Args:
        data: folds, or one folder of prepared data.
        metric: what is recommended by.

    Raises:
        InputError: there is nothing to measure it on.
    """
    manifest = PreparedData.load(data[0])
    counts = manifest.class_counts["train"]
    rare = _by_rows(counts)[0]
    if metric != "macro_f1" and not _held_out(data)[rare]:
        raise InputError(
            f"--metric: {metric} given; it is measured on {manifest.labels[rare]!r}, the rarest class ({counts[rare]} "
            f"training rows), of which no row is held out; take --folds 5, which holds each row out once"
        )


def _by_rows(counts: list[int]) -> list[int]:
    """The classes that have training rows, the rarest first."""
    return sorted((index for index, count in enumerate(counts) if count), key=counts.__getitem__)


def _held_out(data: Sequence[Path]) -> list[int]:
    """Held-out rows of each class."""
    counts = (PreparedData.load(one).class_counts["validation"] for one in data)
    return [sum(of_class) for of_class in zip(*counts, strict=True)]


def train_all(
    recipe: Recipe, data: Sequence[Path], seeds: int, engine: Engine, told: Callable[[int, int], None]
) -> Trained:
    """Train every treatment with every seed on every fold.

    Args:
        recipe: what they share.
        data: folds, or one folder of prepared data.
        seeds: how many, from the recipe's own on.
        engine: trains them.
        told: hears how many trainings are done, and of how many.

    Raises:
        InputError: bad input.
        TrialLost: plain training was lost, or every treatment.
    """
    import numpy as np

    first = recipe.train.seed
    jobs = [(fold, seed, name) for fold in range(len(data)) for seed in range(first, first + seeds) for name in BALANCE]
    results, done, lost = dict[tuple[int, int, str], Result](), list[str](), dict[str, str]()

    def one(job: tuple[int, int, str]) -> None:
        fold, seed, name = job
        overrides = {"balance": name, "train.seed": seed}
        of = f" fold {fold + 1}" if len(data) > 1 else ""
        try:
            if name not in lost:
                results[job] = engine.trial(
                    recipe, overrides, data[fold], f"{name} seed {seed}{of}", tags={"tuneline.treatment": name}
                )
        except (TrialLost, DivergedError) as error:
            lost[name] = str(error)
            if name == PLAIN or len(lost) == len(BALANCE) - 1:
                raise
        done.append(name)
        told(len(done), len(jobs))

    engine.each(one, jobs)
    stored = {job: np.load(result.answers) for job, result in results.items()}
    kept = [name for name in BALANCE if name not in lost]
    probabilities = {
        name: np.stack([
            np.concatenate([stored[fold, seed, name]["probabilities"] for fold in range(len(data))])
            for seed in range(first, first + seeds)
        ])
        for name in kept
    }  # fmt: skip
    labels = [stored[fold, first, PLAIN]["labels"] for fold in range(len(data))]
    seconds = {name: float(np.mean([result.train_seconds for job, result in results.items() if job[2] == name]))
               for name in kept}  # fmt: skip
    manifest = PreparedData.load(data[0])
    counts, held = manifest.class_counts["train"], _held_out(data)
    rare = next(index for index in _by_rows(counts) if held[index])
    unheld = [name for name, rows in zip(manifest.labels, held, strict=True) if not rows]
    together = np.concatenate(labels)
    return Trained(together, _parts(data, labels), probabilities, seconds, manifest.labels, rare, counts, unheld, lost)


def _parts(data: Sequence[Path], labels: list[np.ndarray]) -> np.ndarray:
    import numpy as np

    if len(data) > 1:
        return np.repeat(np.arange(len(data)), [len(part) for part in labels])
    return spread(read_split(data[0], "validation").column("text").to_pylist(), labels[0], PARTS)


def answers_of(found: Trained) -> dict[str, np.ndarray]:
    """What each treatment answers, [seeds, rows]; thresholds are plain training's, each part's fitted on the others."""
    import numpy as np

    answers = {name: probabilities.argmax(2) for name, probabilities in found.probabilities.items()}
    if len(found.names) <= MOST_CLASSES:
        plain, told = found.probabilities[PLAIN], np.zeros_like(answers[PLAIN])
        for which, probabilities in enumerate(plain):
            for part in np.unique(found.parts):
                here = found.parts == part
                thresholds = fit_thresholds(probabilities[~here], found.labels[~here])
                told[which, here] = decide(probabilities[here], thresholds)
        answers[THRESHOLDS] = told
    return answers


def compare(found: Trained) -> list[dict[str, Any]]:
    """A row a treatment, plain training first: each metric with its interval, and its difference from plain."""
    import numpy as np

    answers = answers_of(found)
    names = list(answers)
    scores = of_answers(found.labels, np.stack([answers[name] for name in names]), len(found.names))
    probabilities = [found.probabilities[PLAIN if name == THRESHOLDS else name][:, :, found.rare] for name in names]
    ranking = of_ranking(found.labels == found.rare, np.stack(probabilities))
    measured = {"macro_f1": scores["macro_f1"], "average_precision": ranking, "recall": scores[f"recall_{found.rare}"]}
    rows = []
    for at, name in enumerate(names):
        recalls = {
            label: _honest(scores[f"recall_{index}"].interval(at), int((found.labels == index).sum()))
            for index, label in enumerate(found.names)
        }
        rows.append(
            {
                "treatment": name, **{metric: values.interval(at) for metric, values in measured.items()},
                "recall": recalls[found.names[found.rare]],
                "per_class_recall": recalls,
                "per_class_difference": {
                    label: scores[f"recall_{index}"].difference(at, 0, len(names) - 1)
                    for index, label in enumerate(found.names)
                },
                "difference": {metric: values.difference(at, 0, len(names) - 1) for metric, values in measured.items()},
                "seconds": found.seconds[PLAIN if name == THRESHOLDS else name],
                "set": "" if name == THRESHOLDS else " ".join(f"{key}={value}" for key, value in BALANCE[name].items()
                                                             if value != BALANCE[PLAIN][key]),
            }
        )  # fmt: skip
    return rows


def _honest(interval: Interval, rows: int) -> Interval:
    """A share of none or all of few rows is not known exactly, though each resample is like the next (Wilson 1927)."""
    value, low, high = interval
    if low == high and value in (0.0, 1.0):
        return tuple(share(round(value * rows), rows))
    return interval


def recommend(rows: list[dict[str, Any]], metric: str, rare: str) -> tuple[str, str]:
    """Which treatment to take, and a sentence that says why.

    A treatment is recommended where its difference from plain training is beyond chance, all comparisons taken
    together.
    """
    named = METRICS[metric] if metric == "macro_f1" else f"{METRICS[metric]} of {rare!r}"
    others = sorted(rows[1:], key=lambda row: -row["difference"][metric][0])
    if metric == "average_precision":  # thresholds rank nothing anew
        others = [row for row in others if row["treatment"] != THRESHOLDS]
    better = [row for row in others if row["difference"][metric][1] > 0]
    if not better:
        near = others[0]
        return PLAIN, (
            f"Nothing beats plain cross-entropy in {named} beyond chance; the nearest is {near['treatment']}, "
            f"{signed(near['difference'][metric])}: keep it plain."
        )
    best = better[0]
    how = f"set {best['set']}" if best["set"] else "fit thresholds on the validation split"
    cost = _cost(best, rows[0], metric, rare)
    return best["treatment"], (
        f"{best['treatment']} beats plain cross-entropy in {named}, {signed(best['difference'][metric])}: {how}.{cost}"
    )


def _cost(best: dict[str, Any], plain: dict[str, Any], metric: str, rare: str) -> str:
    """What the recommended treatment loses elsewhere, where that is beyond chance."""
    lost = [
        f"{METRICS[name]}{'' if name == 'macro_f1' else f' of {rare!r}'} {signed(best['difference'][name])}"
        for name in METRICS
        if name != metric and best["difference"][name][2] < 0
    ]
    others = {label: by for label, by in best["per_class_difference"].items() if label != rare and by[2] < 0}
    if others:
        worst = min(others, key=lambda label: others[label][0])
        more = f", and that of {len(others) - 1} more" if len(others) > 1 else ""
        lost.append(f"recall of {worst!r} {signed(others[worst])}{more}")
    slower = best["seconds"] / max(plain["seconds"], 1e-9)
    if slower > 1.2:
        lost.append(f"{slower:.1f} times the seconds")
    return f" It costs {', '.join(lost)}." if lost else ""
