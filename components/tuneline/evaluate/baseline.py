"""TF-IDF with logistic regression, trained in seconds on the same split: what a Transformer has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from sklearn.pipeline import Pipeline

WORD = r"(?u)\S+"  # scikit-learn's own pattern drops one-letter words and punctuation

BETWEEN = " \u2016 "  # a word of its own, so that no bigram joins the last word of one text and the first of the other


def texts_of(table: pa.Table) -> list[str]:
    """What the baseline reads of a split's rows: the text, and the second text where there is one."""
    texts = table.column("text").to_pylist()
    if "pair" not in table.column_names:
        return texts
    return [f"{text}{BETWEEN}{pair}" for text, pair in zip(texts, table.column("pair").to_pylist(), strict=True)]


def baseline_proba(texts: list[str], labels: list[int], test_texts: list[str], classes: int) -> np.ndarray:
    """Probabilities of the baseline on the test texts, [texts, classes]."""
    return proba(fitted(texts, labels), test_texts, classes)


def fitted(texts: list[str], labels: list[int]) -> Pipeline:
    """Word uni- and bigrams with sublinear counts, L2-regularized logistic regression (C = 10), by scikit-learn."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode", token_pattern=WORD),
        LogisticRegression(C=10, max_iter=200),
    )
    return model.fit(texts, labels)


def proba(model: Pipeline, texts: list[str], classes: int) -> np.ndarray:
    """Probabilities of a fitted baseline, [texts, classes]; a class that it never saw has none."""
    import numpy as np

    probabilities = np.zeros((len(texts), classes))
    probabilities[:, model[-1].classes_] = model.predict_proba(texts)
    return probabilities
