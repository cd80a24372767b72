"""Near duplicates: what is found is as alike as asked, and hardly any of it is missed."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline.prepare import duplicates, facts

WORDS = [f"w{number}" for number in range(500)]


def triples(text: str) -> set[tuple[str, ...]]:
    words = text.split(" ")
    return {tuple(words[at : at + 3]) for at in range(max(len(words) - 2, 1))}


def jaccard(one: str, other: str) -> float:
    return len(triples(one) & triples(other)) / len(triples(one) | triples(other))


def grouped(texts: list[str], near: float) -> np.ndarray:
    found = facts.examine(texts, None, near or 0.8)
    folded = [facts.fold(text) for text in texts]
    return duplicates.groups(
        found["folded"], lambda at: found["bands"][:, at], lambda rows: [folded[row] for row in rows], near
    )


def edited(rng: random.Random, words: list[str], edits: int) -> list[str]:
    words = list(words)
    for _ in range(edits):
        words[rng.randrange(len(words))] = rng.choice(WORDS)
    return words


@pytest.mark.parametrize("near", [0.5, 0.8, 0.95])
def test_pairs_at_or_above_the_threshold_are_found_and_no_others(near):
    rng = random.Random(1)
    originals = [rng.choices(WORDS, k=rng.randrange(20, 120)) for _ in range(400)]
    texts = [" ".join(words) for words in originals]
    copies = [" ".join(edited(rng, words, rng.randrange(0, 6))) for words in originals]
    group = grouped(texts + copies, near)
    alike = [jaccard(*pair) >= near for pair in zip(texts, copies, strict=True)]
    together = [group[at] == group[at + len(texts)] for at in range(len(texts))]
    missed = sum(a and not t for a, t in zip(alike, together, strict=True))
    assert not any(t and not a for a, t in zip(alike, together, strict=True))
    assert 50 < sum(alike) < 400
    assert missed <= 0.03 * sum(alike)


@given(st.lists(st.lists(st.sampled_from("a b c é 日本".split()), max_size=6), min_size=1, max_size=8))
def test_short_texts_are_grouped_by_true_similarity(rows):
    texts = [" ".join(words) for words in rows]
    group = grouped(texts, 1.0)
    for one, other in combinations(range(len(texts)), 2):
        if jaccard(texts[one], texts[other]) == 1.0:
            assert group[one] == group[other]
    for one, other in combinations(range(len(texts)), 2):
        if group[one] == group[other]:
            assert triples(texts[one]) == triples(texts[other])


def test_without_a_threshold_only_folded_copies_are_a_group():
    group = grouped(["One two three four", "one  TWO three four", "one two three five"], 0)
    assert group[0] == group[1] != group[2]


def test_the_order_of_the_texts_changes_no_group():
    rng = random.Random(2)
    words = rng.choices(WORDS, k=40)
    texts = [" ".join(edited(rng, words, rng.randrange(0, 3))) for _ in range(60)]
    order = rng.sample(range(60), 60)
    group, moved = grouped(texts, 0.8), grouped([texts[at] for at in order], 0.8)
    sets = {frozenset(np.flatnonzero(group == number).tolist()) for number in group}
    again = {frozenset(order[at] for at in np.flatnonzero(moved == number)) for number in moved}
    assert sets == again


@pytest.mark.parametrize("near", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_the_plan_finds_a_pair_at_the_threshold_with_few_bands(near):
    bands, rows = duplicates.plan(near)
    assert bands <= duplicates.MOST_BANDS
    assert bands * rows <= duplicates.HASHES
    if near >= 0.3:
        assert 1 - (1 - near**rows) ** bands >= duplicates.FOUND


def test_no_texts_have_no_signatures():
    assert duplicates.bands([], 0.8).shape == (0, duplicates.plan(0.8)[0] + duplicates.SKETCH)
