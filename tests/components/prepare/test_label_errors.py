"""Wrong labels rise to the top of the list, and the list is the same whatever the rows' order."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.label_errors import recall, sst2
from tests.conftest import reviews
from tuneline.prepare import corrections, label_errors, ngrams
from tuneline.prepare.label_errors import find

CLASSES = ["neg", "pos"]


def data(count: int, *wrong: int) -> tuple[list[str], np.ndarray]:
    """Reviews and their labels, those of some rows flipped."""
    texts, names = zip(*reviews(count), strict=True)
    labels = np.array([CLASSES.index(name) for name in names])
    labels[list(wrong)] = 1 - labels[list(wrong)]
    return list(texts), labels


def test_flipped_labels_are_the_candidates() -> None:
    ranked = find(*data(240, 3, 77, 140), CLASSES, 0)
    assert set(ranked.rows[:3].tolist()) == {3, 77, 140}
    assert ranked.suggested[:3].tolist() == (1 - data(240, 3, 77, 140)[1][ranked.rows[:3]]).tolist()
    assert sorted(ranked.rows.tolist()) == list(range(240))
    assert 3 <= ranked.count < 24


def test_the_order_of_the_rows_changes_nothing() -> None:
    texts, labels = data(240, 3, 77, 140)
    order = np.random.default_rng(0).permutation(240)
    one, other = find(texts, labels, CLASSES, 0), find([texts[at] for at in order], labels[order], CLASSES, 0)
    assert one.rows.tolist() == order[other.rows].tolist()
    assert one.scores.tobytes() == other.scores.tobytes()


def test_a_copy_with_the_same_wrong_label_does_not_vouch_for_its_twin() -> None:
    texts, labels = data(240, 3)
    ranked = find(texts + [texts[3]] * 9, np.append(labels, [labels[3]] * 9), CLASSES, 0)
    assert set(ranked.rows[:10].tolist()) == {3, *range(240, 249)}


def test_the_second_text_is_read() -> None:
    texts, labels = data(240, 3)
    ranked = find(["the same"] * 240, labels, CLASSES, 0, pairs=texts)
    assert ranked.rows[0] == 3


def test_a_class_of_one_row_is_not_judged() -> None:
    texts, labels = data(60)
    ranked = find([*texts, "good lovely fine"], np.append(labels, 2), [*CLASSES, "rare"], 0)
    assert ranked.scores[ranked.rows == 60] == 1
    assert 60 not in ranked.rows[: ranked.count]


@pytest.mark.parametrize("texts", [[], ["a"] * 19, ["a"] * 40, [""] * 40, ["a", "b"] * 20])
def test_data_that_says_nothing_gives_no_candidates(texts: list[str]) -> None:
    ranked = find(texts, np.arange(len(texts)) // 2 % 2, CLASSES, 0)
    assert ranked.count == 0
    assert ranked.told()


def test_of_too_many_rows_a_part_is_looked_at_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_errors, "MOST_ROWS", 100)
    texts, labels = data(240)
    ranked = find(texts, labels, CLASSES, 0)
    assert len(ranked.rows) == 100
    assert "100 rows of 240, drawn by content hash" in ranked.told()
    monkeypatch.setattr(label_errors, "MOST_CHARACTERS", 1000)
    part = find(texts, labels, CLASSES, 0)
    assert sum(len(texts[row]) for row in part.rows) <= 1000
    assert set(part.rows.tolist()) < set(ranked.rows.tolist())


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text(), st.integers(0, 2)), min_size=20, max_size=60))
def test_no_text_breaks_it(rows: list[tuple[str, int]]) -> None:
    texts, labels = [text for text, _ in rows], np.array([label for _, label in rows])
    ranked = find(texts, labels, ["a", "b", "c"], 0)
    assert np.all((ranked.scores >= 0) & (ranked.scores <= 1))
    assert len(set(ranked.rows.tolist())) == len(ranked.rows)


def test_ngrams_keep_words_apart_and_do_not_cross_texts() -> None:
    texts = ["ab cd", "ab cd", "abc d", "cd", "ab"]
    rows = ngrams.tfidf(texts)
    dense = np.zeros((5, rows.width))
    for row in range(5):
        dense[row, rows.columns[rows.starts[row] : rows.starts[row + 1]]] = rows.values[rows.starts[row] :][
            : rows.starts[row + 1] - rows.starts[row]
        ]
    assert np.array_equal(dense[0], dense[1])
    assert np.linalg.norm(dense[[0, 1, 3, 4]], axis=1) == pytest.approx(1)
    assert dense[0] @ dense[3] > 0.1
    assert dense[3] @ dense[4] == 0
    assert rows.times(np.ones(rows.width), 0, 5) == pytest.approx(dense.sum(1))


def test_a_person_fills_in_the_file_and_gives_it_back(tmp_path: Path) -> None:
    texts, labels = data(240, 3, 77, 140)
    texts[3], texts[77] = f"=1+1; {texts[3]}", f"'{texts[77]}\n"
    ranked = find(texts, labels, CLASSES, 0)
    path = tmp_path / "label_errors.csv"
    assert label_errors.write(path, ranked, texts, labels, CLASSES, range(1000, 1240)) == ranked.count
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["row"]) - 1001 for row in rows] == ranked.rows[: ranked.count].tolist()
    assert [corrections.unguarded(row["text"]) for row in rows] == [texts[at] for at in ranked.rows[: ranked.count]]
    assert not any(row["text"].startswith("=") for row in rows)
    assert corrections.load(str(path)).labels == {}
    for row in rows[:3]:
        row["new_label"] = row["suggested_label"]
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    new, _ = corrections.load(str(path)).apply(texts, None, [CLASSES[label] for label in labels])
    assert new == [CLASSES[label] for label in data(240)[1]]


def test_flipped_labels_of_real_text_are_found(real_data: Path) -> None:
    found = [recall(*sst2(real_data), seed)[0] for seed in range(3)]
    assert statistics.mean(found) >= 0.55, found
