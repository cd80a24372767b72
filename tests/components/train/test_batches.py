"""Batches hold every text once, in an order of their own each epoch, with texts of like length together."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline.train.batches import BUCKET_BATCHES, balanced, epoch_batches

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
