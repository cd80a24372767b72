"""Batches hold every text once, in an order of their own each epoch, with texts of like length together."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline.train.batches import BUCKET_BATCHES, _quotas, balanced, epoch_batches

LENGTHS = [random.Random(number).randrange(3, 200) for number in range(1000)]


@given(st.lists(st.integers(1, 500), max_size=200), st.integers(1, 33), st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_an_epoch_holds_every_text_once_in_as_few_batches_as_can_be(lengths, size, seed, epoch):
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sum(len(batch) < size for batch in batches) == (1 if len(lengths) % size else 0)


def test_batches_are_the_same_each_time_and_others_for_another_seed_or_epoch():
    first = epoch_batches(LENGTHS, 16, 0, 0)
    assert first == epoch_batches(LENGTHS, 16, 0, 0)
    assert first != epoch_batches(LENGTHS, 16, 1, 0)
    assert first != epoch_batches(LENGTHS, 16, 0, 1)


def test_a_training_that_goes_on_with_a_later_version_meets_the_same_batches():
    """A checkpoint keeps the number of the batch, and not the order."""
    lengths = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    assert epoch_batches(lengths, 3, seed=7, epoch=2) == [[1, 3, 6], [8, 4, 7], [5], [0, 9, 2]]
    assert epoch_batches(lengths, 3, 7, 2, rows=[0, 0, 4, 8, 9]) == [[0, 9, 0], [8, 4]]
    labels = [2, 2, 2, 2, 0, 1, 0]
    assert balanced(labels, None, 7, 1) == [4, 6, 4, 5, 5, 2, 1]
    assert balanced(labels, [1, 0.5, 0.5, 1, 2, 1, 1], 7, 1) == [6, 4, 5, 5, 1, 0, 2]


@pytest.mark.parametrize(("texts", "stretches"), [(40, 1), (42, 2), (80, 2), (82, 3)])
def test_lengths_are_ordered_within_20_batches_and_no_further(texts, stretches):
    spans = [(min(batch), max(batch)) for batch in epoch_batches(list(range(texts)), 2, 0, 0)]
    assert len(spans) == texts // 2
    # within a stretch no two batches overlap
    assert max(sum(low <= at <= high for low, high in spans) for at in range(texts)) == stretches


@pytest.mark.parametrize(
    ("parts", "total", "found"),
    [([1, 1, 1], 9, [3, 3, 3]), ([1, 1, 1], 10, [4, 3, 3]), ([1, 1, 1], 11, [4, 4, 3]), ([3, 1], 5, [4, 1]),
     ([1, 3], 6, [2, 4]), ([0.5, 0.2, 0.3], 7, [4, 1, 2]), ([5], 3, [3])],
)  # fmt: skip
def test_what_is_left_after_whole_numbers_goes_to_the_largest_remainders_and_then_to_the_first(parts, total, found):
    assert _quotas(parts, total) == found


def test_a_class_goes_on_where_it_stopped_and_in_a_new_order_each_time_round():
    labels = [0] * 6 + [1] * 6
    rounds = [[index for index in balanced(labels, None, 3, epoch) if labels[index] == 0] for epoch in range(6)]
    assert all(sorted(one) == list(range(6)) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 3
    other = [index for index in balanced(labels, None, 3, 0) if labels[index] == 1]
    assert [index - 6 for index in other] != rounds[0]  # an order of its own for each class
    assert balanced(labels, None, 4, 0) != balanced(labels, None, 3, 0)


def test_grouping_by_length_saves_most_of_the_padding():
    padded = sum(len(batch) * max(LENGTHS[index] for index in batch) for batch in epoch_batches(LENGTHS, 16, 0, 0))
    unsorted = sum(16 * max(LENGTHS[at : at + 16]) for at in range(0, 1000, 16))
    assert sum(LENGTHS) <= padded < 1.15 * sum(LENGTHS) < 1.6 * sum(LENGTHS) < unsorted


def test_batches_do_not_come_in_order_of_length():
    first = [LENGTHS[batch[0]] for batch in epoch_batches(LENGTHS, 16, 0, 0)]
    ups = sum(before <= after for before, after in pairwise(first))
    assert 0.25 < ups / (len(first) - 1) < 0.75


def test_texts_of_equal_length_meet_others_than_their_neighbours():
    batches = epoch_batches([7] * 1000, 16, 0, 0)
    assert all(max(batch) - min(batch) > 16 for batch in batches if len(batch) > 2)
    assert len(batches) > BUCKET_BATCHES


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 3))
def test_a_balanced_epoch_has_as_many_rows_of_each_class_and_as_many_in_all(labels, epoch):
    chosen = balanced(labels, None, 7, epoch)
    counts = Counter(labels[index] for index in chosen)
    assert len(chosen) == len(labels)
    assert max(counts.values()) - min((counts[label] for label in set(labels)), default=0) <= 1
    assert chosen == balanced(labels, None, 7, epoch)


def test_a_frequent_classs_rows_are_all_seen_in_turn_over_the_epochs():
    labels = [0] * 9 + [1]
    seen = [Counter(balanced(labels, None, 0, epoch)) for epoch in range(9)]
    assert all(one[9] == 5 for one in seen)
    assert sum(seen, Counter()) == Counter(dict.fromkeys(range(9), 5) | {9: 45})


def test_a_class_of_many_windows_weighs_no_more_than_others():
    labels, weights = [0] * 4 + [1] * 12, [2.0] * 4 + [2 / 3] * 12
    sums = Counter()
    for index in balanced(labels, weights, 0, 0):
        sums[labels[index]] += weights[index]
    assert sums[0] == pytest.approx(sums[1], rel=0.05)
