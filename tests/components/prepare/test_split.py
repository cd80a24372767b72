"""A row's split depends on its text and the seed, and on nothing else."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline.prepare.split import assign, place, sample

texts = st.lists(st.text(st.characters(codec=None, exclude_categories=()), max_size=8), max_size=30)
seeds = st.integers(0, 2**32 - 1)
share = st.floats(0, 0.5, exclude_max=True)
MANY = [f"text number {number}" for number in range(5000)]


@given(texts, seeds, share, share, st.randoms(use_true_random=False))
def test_the_split_of_a_text_does_not_depend_on_the_order(rows, seed, validation, test, draw):
    before = dict(zip(rows, assign(rows, seed, validation, test), strict=True))
    shuffled = draw.sample(rows, len(rows))
    assert dict(zip(shuffled, assign(shuffled, seed, validation, test), strict=True)) == before


@given(texts, seeds, share, share)
def test_equal_texts_stay_on_one_side(rows, seed, validation, test):
    names = assign(rows + rows[::-1], seed, validation, test)
    assert names == names[::-1]


@given(texts, texts, seeds, share, share)
def test_added_rows_move_no_old_one(rows, more, seed, validation, test):
    whole = dict(zip(more + rows, assign(more + rows, seed, validation, test), strict=True))
    assert [whole[text] for text in rows] == assign(rows, seed, validation, test)


@given(texts, seeds, share, share, share)
def test_a_larger_validation_share_takes_from_train_alone(rows, seed, test, one, other):
    small, large = sorted((one, other))
    before, after = assign(rows, seed, small, test), assign(rows, seed, large, test)
    moved = {pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]}
    assert moved <= {("train", "validation")}


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.3, 0.0), (0.0, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_shares_are_roughly_kept(seed, validation, test):
    counts = Counter(assign(MANY, seed, validation, test))
    assert counts["validation"] / len(MANY) == pytest.approx(validation, abs=0.03 if validation else 0)
    assert counts["test"] / len(MANY) == pytest.approx(test, abs=0.03 if test else 0)


def test_another_seed_splits_otherwise():
    assert assign(MANY, 0, 0.1, 0.2) != assign(MANY, 1, 0.1, 0.2)


def test_a_place_is_the_same_on_every_machine_and_in_every_version():
    assert place("a good film", 0, "split") == pytest.approx(0.9832707133620889, abs=1e-12)


def test_a_place_depends_on_text_seed_and_purpose():
    places = [place("a", 0, "split"), place("b", 0, "split"), place("a", 1, "split"), place("a", 0, "sample")]
    assert len(set(places)) == 4


@given(texts, st.integers(0, 40), seeds)
def test_a_sample_holds_as_many_as_asked_in_their_own_order(rows, keep, seed):
    indices = sample(rows, keep, seed)
    assert len(indices) == (min(keep, len(rows)) if keep else len(rows))
    assert indices == sorted(set(indices))
    assert set(indices) <= set(range(len(rows)))


@given(texts, st.integers(1, 40), seeds, st.randoms(use_true_random=False))
def test_a_sample_does_not_depend_on_the_order(rows, keep, seed, draw):
    shuffled = draw.sample(rows, len(rows))
    taken = Counter(rows[index] for index in sample(rows, keep, seed))
    assert Counter(shuffled[index] for index in sample(shuffled, keep, seed)) == taken


@given(texts, st.integers(1, 30), seeds)
def test_a_larger_sample_holds_the_smaller(rows, keep, seed):
    assert set(sample(rows, keep, seed)) <= set(sample(rows, keep + 1, seed))


def test_a_sample_is_seeded_and_no_prefix():
    first = sample(MANY, 100, 0)
    assert first == sample(MANY, 100, 0)
    assert first != sample(MANY, 100, 1)
    assert max(first) > 4000


def test_a_sample_is_fair_to_sorted_rows():
    rows = [f"bad {number}" for number in range(1000)] + [f"good {number}" for number in range(1000)]
    taken = Counter(rows[index].split()[0] for index in sample(rows, 400, 0))
    assert taken["bad"] == pytest.approx(200, abs=40)
