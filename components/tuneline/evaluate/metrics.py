"""Numbers about predictions, each with its 95% interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneline.statistics import Counts, Estimate, bootstrap, mean, share, tabulate, wilson
from tuneline.statistics import confusion as count

if TYPE_CHECKING:
    import numpy as np

BINS = 15
SMALLEST = 1e-12


def score(labels: np.ndarray, probabilities: np.ndarray, answers: np.ndarray | None = None) -> dict[str, float]:
    """accuracy, macro_f1 (over classes that occur or are predicted) and log_loss (natural), without intervals.

    Args:
        labels: [rows] class indices.
        probabilities: [rows, classes].
        answers: [rows] what was answered, -1 for nothing; the most probable class where left out.
    """
    told = probabilities.argmax(1) if answers is None else answers
    true, answered, counts = tabulate(labels, told)
    return {
        "accuracy": float((labels == told).mean()),
        "macro_f1": float(Counts.of(counts[None], true, answered, probabilities.shape[1]).macro_f1()[0]),
        "log_loss": float(losses(labels, probabilities).mean()),
    }


def measure(labels: np.ndarray, probabilities: np.ndarray, answers: np.ndarray | None = None) -> dict[str, Estimate]:
    """All metrics with their intervals.

    accuracy and micro_f1 (Wilson); macro_f1, weighted_f1, mcc and calibration_error (bootstrap of counts); log_loss
    (mean of skewed values); roc_auc and average_precision (one against the rest, mean over the classes that occur;
    infinitesimal jackknife on the logit scale). The last two are left out where all rows are of one class.

    Args:
        labels: [rows] class indices.
        probabilities: [rows, classes].
        answers: [rows] what was answered, -1 for nothing; the most probable class where left out.
    """
    told = probabilities.argmax(1) if answers is None else answers
    found = {
        "accuracy": share(int((labels == told).sum()), len(labels)),
        **_of_counts(labels, told, probabilities.shape[1]),
        "log_loss": mean(losses(labels, probabilities)),
        "calibration_error": calibration_error(labels, probabilities),
    }
    return found | ranking(labels, probabilities)


def losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Minus the logarithm of the true class's probability, [rows], which counts as 1e-12 at least."""
    import numpy as np

    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels].astype(float), SMALLEST, 1.0))


def _f1_of_jaccard(both: int, union: int) -> Estimate:
    """F1 = 2J / (1 + J) of the share J of the rows that are of a class or called it, hence with J's Wilson interval."""
    return Estimate(*(2 * value / (1 + value) for value in share(both, union)))


def _of_counts(labels: np.ndarray, answers: np.ndarray, classes: int) -> dict[str, Estimate]:
    """macro_f1, micro_f1, weighted_f1 and mcc."""
    import numpy as np

    true, answered, counts = tabulate(labels, answers)

    def statistics(tables: np.ndarray) -> np.ndarray:
        of = Counts.of(tables, true, answered, classes)
        micro = 2 * of.both.sum(1) / (of.true.sum(1) + of.answered.sum(1))
        weighted = (np.nan_to_num(of.f1()) * of.true).sum(1) / of.true.sum(1)
        return np.stack([of.macro_f1(), micro, weighted, _mcc(of)], 1)

    # With a row or two of a class the bias that BCa corrects may be larger than the interval, which then lies beside.
    found = [
        Estimate(value, min(low, value), max(high, value)) for value, low, high in bootstrap(counts, statistics)
    ]  # fmt: skip
    right = int((labels == answers).sum())
    if right in (0, len(labels)):  # every resample is like the next: only the accuracy's interval is honest
        low, high = (float(end) for end in wilson(right, len(labels)))
        found = [estimate._replace(low=min(low, estimate.value), high=high) for estimate in found]
    return dict(zip(("macro_f1", "micro_f1", "weighted_f1", "mcc"), found, strict=True))


def _mcc(of: Counts) -> np.ndarray:
    """Matthews' correlation of several classes (Gorodkin 2004), [tables]; 0 where one class is all there is."""
    import numpy as np

    rows, right = of.true.sum(1), of.both.sum(1)
    up = right * rows - (of.true * of.answered).sum(1)
    down = np.sqrt((rows**2 - (of.answered**2).sum(1)) * (rows**2 - (of.true**2).sum(1)))
    return np.divide(up, down, out=np.zeros_like(down), where=down > 0)


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> Estimate:
    """Expected calibration error of the most probable class over 15 bins of equally many rows (Nguyen, O'Connor 2015).

    It is above 0 even of a perfectly calibrated model, the more the fewer rows there are.
    """
    import numpy as np

    bins = reliability(labels, probabilities)
    counts = np.array([[row["n"] - row["right"], row["right"]] for row in bins]).ravel()
    confidence = np.repeat([row["confidence"] for row in bins], 2)
    gap = confidence - np.tile([0.0, 1.0], len(bins))
    kept = counts > 0
    starts = np.flatnonzero(np.diff(np.repeat(np.arange(len(bins)), 2)[kept], prepend=-1))

    def statistics(tables: np.ndarray) -> np.ndarray:
        return np.abs(np.add.reduceat(tables * gap[kept], starts, axis=1)).sum(1, keepdims=True) / len(labels)

    return bootstrap(counts[kept], statistics)[0]


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """The reliability diagram: n, right, mean confidence, accuracy, low, high of bins of equally many rows."""
    import numpy as np

    confidence, right = probabilities.max(1).astype(float), probabilities.argmax(1) == labels
    order = np.argsort(confidence, kind="stable")
    found = []
    for rows in np.array_split(order, min(bins, len(order))):
        accuracy, low, high = share(int(right[rows].sum()), len(rows))
        found.append(
            {
                "n": len(rows), "right": int(right[rows].sum()), "confidence": float(confidence[rows].mean()),
                "accuracy": accuracy, "low": low, "high": high,
            }
        )  # fmt: skip
    return found


def ranking(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Estimate]:
    """roc_auc and average_precision, one class against the rest, mean over the classes that occur and do not fill all.

    Intervals from each row's influence on the mean (for the area that is DeLong 1988), on the logit scale.
    """
    import numpy as np

    rows, classes = probabilities.shape
    occurring = [index for index in range(classes) if 0 < np.count_nonzero(labels == index) < rows]
    if not occurring:
        return {}
    influence, value = np.zeros((2, rows)), np.zeros(2)
    fewer = [int(min(count, rows - count)) for count in (np.count_nonzero(labels == index) for index in occurring)]
    for index in occurring:
        for which, function in enumerate((_area, _precision)):
            of_class, of_rows = function(labels == index, probabilities[:, index])
            value[which] += of_class / len(occurring)
            influence[which] += of_rows / len(occurring)
    deviations = np.sqrt((influence**2).sum(1))
    names = ("roc_auc", "average_precision")
    each = zip(names, value.tolist(), deviations.tolist(), strict=True)
    return {name: _on_logits(mean_of, deviation, fewer) for name, mean_of, deviation in each}


def _on_logits(value: float, deviation: float, fewer: list[int]) -> Estimate:
    """The interval of a mean over classes, each with so many rows on its rarer side.

    Where no row has an influence, as where all are ranked right, it is that of shares of the rarer sides (Wilson).
    """
    import numpy as np

    from tuneline.statistics import Z

    slope = value * (1 - value)
    if slope <= 0 or deviation == 0:
        low, high = (float(end.mean()) for end in wilson(value * np.array(fewer), fewer))
        return Estimate(value, min(low, value), max(high, value))
    odds = np.log(value / (1 - value)) + np.array([-Z, Z]) * deviation / slope
    low, high = 1 / (1 + np.exp(-odds))
    return Estimate(value, float(low), float(high))


def _area(positive: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    """Area under the ROC curve, and each row's influence on it, [rows]."""
    import numpy as np

    ordered = {side: np.sort(scores[positive == side]) for side in (True, False)}
    many, few = len(ordered[True]), len(ordered[False])

    def beaten(by: np.ndarray, among: np.ndarray) -> np.ndarray:
        return (np.searchsorted(among, by, "left") + np.searchsorted(among, by, "right")) / 2

    above = beaten(scores, ordered[False]) / few
    below = 1 - beaten(scores, ordered[True]) / many
    area = float(above[positive].mean())
    return area, np.where(positive, (above - area) / many, (below - area) / few)


def _precision(positive: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    """Average precision, and each row's influence on it, [rows]; rows of one score stand or fall together."""
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    hit, ranked = positive[order], scores[order]
    last = np.flatnonzero(np.diff(ranked, append=np.nan) != 0)  # of each run of equal scores
    runs = np.diff(last, prepend=-1)
    found = np.repeat(np.cumsum(hit)[last], runs)
    taken = np.repeat(last + 1, runs)
    precision, total = found / taken, hit.sum()
    average = float((precision * hit).sum() / total)

    def from_here(values: np.ndarray) -> np.ndarray:
        """Sums over the positive rows that do not stand before a row."""
        sums = np.cumsum((values * hit)[::-1])[::-1]
        return np.repeat(sums[last - runs + 1], runs)

    moved = hit * (precision - average) + hit * from_here(1 / taken) - from_here(found / taken**2)
    influence = np.empty(len(order))
    influence[order] = moved / total
    return average, influence


def per_class(labels: np.ndarray, answers: np.ndarray, names: list[str]) -> list[dict[str, float | str]]:
    """label, n, precision, recall, f1 of each class, and the ends of their intervals as precision_low and so on."""
    import numpy as np

    counts = confusion(labels, answers, len(names))
    both, true = np.diag(counts), np.bincount(labels, minlength=len(names))
    answered = np.asarray(counts).sum(0)
    found = []
    for name, right, of, told in zip(names, both.tolist(), true.tolist(), answered.tolist(), strict=True):
        row: dict[str, float | str] = {"label": name, "n": of}
        estimates = {
            "precision": share(right, told),
            "recall": share(right, of),
            "f1": _f1_of_jaccard(right, of + told - right),
        }
        for metric, (value, low, high) in estimates.items():
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        found.append(row)
    return found


def confusion(labels: np.ndarray, answers: np.ndarray, classes: int) -> list[list[int]]:
    """Counts [true][answered]."""
    return count(labels, answers, classes).tolist()
