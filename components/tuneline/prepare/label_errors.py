"""Training rows whose label looks wrong: confident learning (confident.py), by a model for this end alone.

A cheap model gives each row the probabilities of the classes without having seen the row or its copies.

The model is naive Bayes on TF-IDF rows of n-grams (Rennie et al. 2003, without the complement). On 5% flipped labels
of SST-2 it ranks better than logistic regression on the same features, and it trains by counting: what a fold must not
know is taken off the counts. So no library of models is needed here, nor its 150 MB in the image.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneline.confident import Suspects, suspects
from tuneline.prepare import corrections, split
from tuneline.prepare.ngrams import LONGEST, Sparse, tfidf

if TYPE_CHECKING:
    import numpy as np

FOLDS = 10
SMOOTHING = 0.2
"""Added to the weight of each n-gram in each class."""
FEWEST = 20
"""Rows below which nothing is said."""
MOST_ROWS = 200_000
MOST_CHARACTERS = 24_000_000
"""Of all rows together, as they are read; fewer where there are more than 83 classes, so that the cost is bounded."""
MOST_WORK = 2_000_000_000
"""Characters times classes."""
SHOWN = 32_000
"""Characters of a text that a cell shows; a spreadsheet's cell holds 32,767."""
COLUMNS = ("rank", "split", "row", "text", "label", "suggested_label", "score", "new_label", "key")


@dataclass(frozen=True)
class Ranked:
    """Rows in the order in which a person should look at them.

    Attributes:
        rows: int64 [looked at], indices into the texts given.
        suggested: int64 [looked at], the most probable class, as an index.
        scores: float64 [looked at], from 0 (surely wrong) to 1: half of one plus the probability of the given label
            less that of the best other.
        count: the first `count` rows are candidates.
        given: rows given; more than looked at where a part was drawn by content hash.
    """

    rows: np.ndarray
    suggested: np.ndarray
    scores: np.ndarray
    count: int
    given: int

    def told(self) -> str:
        """A sentence for the notes."""
        if not len(self.rows):
            return f"label errors: not searched; fewer than {FEWEST} rows or two classes"
        part = f" of {self.given}, drawn by content hash," if len(self.rows) < self.given else ""
        return f"label errors: {self.count} candidates among {len(self.rows)} rows{part} in label_errors.csv"


def find(
    texts: Sequence[str], labels: np.ndarray, classes: Sequence[str], seed: int, pairs: Sequence[str] | None = None
) -> Ranked:
    """Rank rows by how wrong their label looks. The order of the rows changes no score.

    Args:
        texts: the texts.
        labels: int [texts], indices into classes.
        classes: the labels' names.
        seed: of the folds, and of the part that is drawn where there are too many rows.
        pairs: the second texts, where there are any.
    """
    import numpy as np

    whole = texts if pairs is None else [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)]
    labels = np.asarray(labels)
    if len(whole) < FEWEST or len(np.unique(labels)) < 2:
        nothing = np.zeros(0, np.int64)
        return Ranked(nothing, nothing, np.zeros(0), 0, len(whole))
    order, folds = _drawn(whole, labels, len(classes), seed)
    given = labels[order]
    scored = _out_of_fold(tfidf([whole[int(index)] for index in order]), given, folds, len(classes))
    candidate, suggested, scores = _confident(scored, given)
    ranking = np.lexsort((np.arange(len(order)), scores, ~candidate))
    return Ranked(order[ranking], suggested[ranking], scores[ranking], int(candidate.sum()), len(whole))


def _drawn(texts: Sequence[str], labels: np.ndarray, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows to look at, fold by fold and within a fold by content, and the fold of each. Copies share a fold."""
    import numpy as np

    drawn = [(split.place(text, seed, "label errors"), min(len(text), LONGEST)) for text in texts]
    places, read = np.array(drawn).T
    order = np.lexsort((labels, places))[:MOST_ROWS]
    order = order[np.cumsum(read[order]) <= min(MOST_CHARACTERS, MOST_WORK // classes)]
    folds = (places[order] * 2**53).astype(np.int64) % FOLDS  # the bits that did not decide who is drawn
    by_fold = np.argsort(folds, kind="stable")
    return order[by_fold], folds[by_fold]


def _out_of_fold(rows: Sparse, labels: np.ndarray, folds: np.ndarray, classes: int) -> np.ndarray:
    """Log-likelihoods [rows, classes] by a model of the other folds; -inf where these have no row of the class."""
    import numpy as np

    borders = np.searchsorted(folds, np.arange(FOLDS + 1))
    parts = [slice(rows.starts[first], rows.starts[last]) for first, last in itertools.pairwise(borders)]
    entry_labels = np.repeat(labels.astype(np.int32), np.diff(rows.starts))
    scored = np.full((len(labels), classes), -np.inf)
    for label in range(classes):
        inside = [rows.totals(part, entry_labels[part] == label) for part in parts]
        total = np.sum(inside, axis=0)
        for fold, (first, last) in enumerate(itertools.pairwise(borders)):
            if np.any((labels == label) & (folds != fold)):
                counts = np.maximum(total - inside[fold], 0) + SMOOTHING
                scored[first:last, label] = rows.times(np.log(counts / counts.sum()), first, last)
    return scored


def _confident(scored: np.ndarray, labels: np.ndarray) -> Suspects:
    """What is thought of each row's label, by the log-likelihoods of the classes."""
    import numpy as np

    judged = np.isfinite(scored[np.arange(len(labels)), labels]) & (scored.max(1) > scored.min(1))
    with np.errstate(invalid="ignore"):  # a row whose fold holds all rows of all classes has no probabilities
        return suspects(_calibrated(scored, labels, judged), labels, judged)


def _calibrated(scored: np.ndarray, labels: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Probabilities [rows, classes] at the temperature that makes the given labels likeliest (Guo et al. 2017)."""
    import numpy as np

    def log_proba(sharpness: float) -> np.ndarray:
        shifted = sharpness * (scored - scored.max(1, keepdims=True))
        return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

    def loss(sharpness: float) -> float:
        return float(-log_proba(sharpness)[judged, labels[judged]].sum())

    return np.exp(log_proba(min((2.0 ** (step / 2) for step in range(-4, 15)), key=loss)))


def write(
    path: Path, ranked: Ranked, texts: Sequence[str], labels: np.ndarray, classes: Sequence[str], rows: Sequence[int],
    pairs: Sequence[str] | None = None, split_name: str = "train",
) -> int:  # fmt: skip
    """Write the candidates as a CSV for people: to open in a spreadsheet, fill in new_label, and give back.

    UTF-8 with a byte order mark, without which Excel takes it for another encoding. `corrections.load` reads it.

    Args:
        path: label_errors.csv.
        ranked: what find gave for these texts, labels, classes and pairs.
        texts: as given to find.
        labels: as given to find.
        classes: as given to find.
        rows: place of each text in its source, from 0; shown from 1.
        pairs: as given to find; shown below the text.
        split_name: the split of all rows.

    Returns:
        How many candidates there are.
    """
    with path.open("w", newline="", encoding="utf-8-sig", errors="surrogatepass") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for place in range(ranked.count):
            index = int(ranked.rows[place])
            pair = None if pairs is None else pairs[index]
            shown = texts[index] if pair is None else f"{texts[index]}\n{pair}"
            label, suggested = classes[int(labels[index])], classes[int(ranked.suggested[place])]
            cells = (split_name, str(rows[index] + 1), shown[:SHOWN], label, suggested)
            key = corrections.key(texts[index], pair)
            score = f"{ranked.scores[place]:.4f}"
            writer.writerow([place + 1, *map(corrections.guarded, cells), score, "", key])
    return ranked.count
