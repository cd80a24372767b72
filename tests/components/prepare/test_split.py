"""A row's split depends on its text and the seed, and on nothing else."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tuneline.artifacts import SPLITS
from tuneline.prepare import split
from tuneline.prepare.split import TEST, TRAIN, VALIDATION, place, places

texts = st.lists(st.text(st.characters(codec=None, exclude_categories=()), max_size=8), max_size=30)
seeds = st.integers(0, 2**32 - 1)
share = st.floats(0, 0.5, exclude_max=True)
MANY = [f"text number {number}" for number in range(5000)]


def assign(rows: list[str], seed: int, validation: float, test: float) -> list[str]:
    return [SPLITS[at] for at in split.assign(places(rows, seed, "split"), validation, test)]


def sample(rows: list[str], keep: int, seed: int) -> list[int]:
    return split.sample(places(rows, seed, "sample"), keep).tolist()


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
    found = [place("a", 0, "split"), place("b", 0, "split"), place("a", 1, "split"), place("a", 0, "sample")]
    assert len(set(found)) == 4


@given(texts, seeds, share)
def test_a_row_is_a_test_row_where_its_place_is_below_the_share(rows, seed, test):
    assert assign(rows, seed, 0, test) == ["test" if place(text, seed, "split") < test else "train" for text in rows]


def test_a_row_at_the_very_end_of_a_share_belongs_to_the_next_split():
    units = np.array([0, 2**62 - 2**12, 2**62, 2**63 - 2**12, 2**63, 2**64 - 2**12], np.uint64)
    assert split.assign(units, 0.25, 0.25).tolist() == [TEST, TEST, VALIDATION, VALIDATION, TRAIN, TRAIN]
    assert split.assign(units[:1], 0.0, 0.0).tolist() == [TRAIN]  # even place 0 is in no split of share 0
    assert split.assign(units[:1], 0.1, 0.0).tolist() == [VALIDATION]


def test_of_equal_texts_a_sample_takes_the_first():
    draws = np.tile(np.array([5, 3], np.uint64), 500)
    assert split.sample(draws, 10).tolist() == list(range(1, 21, 2))
    assert split.sample(draws, 502).tolist() == sorted([*range(1, 1000, 2), 0, 2])


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


def kept(rows: list[tuple[str, int]], validation: float = 0.3, test: float = 0.3) -> tuple[list[int], list[int]]:
    """The split of each row before and after keep_classes."""
    units, labels = places([text for text, _ in rows], 0, "split"), np.array([label for _, label in rows], np.int32)
    before = split.assign(units, validation, test)
    after = before.copy()
    split.keep_classes(after, units, labels, np.zeros(len(rows), bool))
    return before.tolist(), after.tolist()


labelled = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(-1, 3)), max_size=12)


@given(labelled)
def test_no_class_is_held_out_altogether(rows):
    _, after = kept(rows)
    in_train = {label for (_, label), at in zip(rows, after, strict=True) if at == TRAIN}
    assert {label for _, label in rows if label >= 0} <= in_train


@given(labelled)
def test_rows_of_one_text_move_together(rows):
    _, after = kept(rows)
    assert len({(text, at) for (text, _), at in zip(rows, after, strict=True)}) == len({text for text, _ in rows})


@given(labelled, labelled)
def test_added_rows_move_an_old_one_only_with_a_text_of_a_class_that_lacked_training_rows(rows, more):
    placed, before = kept(rows)
    _, after = kept(rows + more)
    taught = {label for (_, label), at in zip(rows, placed, strict=True) if at == TRAIN}
    for (text, _), was, now in zip(rows, before, after, strict=False):
        if was != now:
            assert {label for other, label in rows + more if other == text} - taught
            assert TRAIN in (was, now)


SPRING, AUTUMN = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 9, 1, tzinfo=UTC)


def test_rows_from_a_date_on_are_held_out_whatever_their_hash():
    times = np.array([split.microseconds(datetime(2026, month, 1, tzinfo=UTC)) for month in range(1, 13)])
    at = np.full(12, TEST, np.int8)
    decided = split.cut_off(at, times, SPRING, AUTUMN)
    assert at.tolist() == [TEST] * 2 + [VALIDATION] * 6 + [TEST] * 4
    assert decided.tolist() == [False] * 2 + [True] * 10


def test_a_row_of_the_very_moment_is_held_out_and_one_before_it_is_not():
    at = np.zeros(2, np.int8)
    split.cut_off(at, np.array([split.microseconds(AUTUMN) - 1, split.microseconds(AUTUMN)]), None, AUTUMN)
    assert at.tolist() == [TRAIN, TEST]


def test_a_class_that_begins_after_the_date_is_not_moved_into_the_past():
    at, labels = np.array([TRAIN, TRAIN, TEST, VALIDATION], np.int8), np.array([0, 0, 1, 2], np.int32)
    moved = split.keep_classes(at, np.arange(4, dtype=np.uint64), labels, np.array([False, False, True, False]))
    assert (at.tolist(), moved) == ([TRAIN, TRAIN, TEST, TRAIN], 1)


def test_rows_of_a_text_that_stay_are_not_counted_as_moved():
    # One text stands in train as class 0, and after the date in test as class 1, which train has not.
    at, units = np.array([TRAIN, TEST, VALIDATION], np.int8), np.array([7, 7, 8], np.uint64)
    moved = split.keep_classes(at, units, np.array([0, 1, 1], np.int32), np.array([False, True, False]))
    assert (at.tolist(), moved) == ([TRAIN, TEST, TRAIN], 1)


def test_where_train_has_every_class_nothing_moves_and_rows_without_a_label_ask_for_nothing():
    at = np.array([TRAIN, TEST, VALIDATION], np.int8)
    moved = split.keep_classes(at, np.arange(3, dtype=np.uint64), np.array([0, 0, -1], np.int32), np.zeros(3, bool))
    assert (at.tolist(), moved) == ([TRAIN, TEST, VALIDATION], 0)


def test_microseconds_count_from_1970_as_the_dates_of_the_rows_do():
    assert split.microseconds(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert split.microseconds(datetime(2001, 9, 9, 1, 46, 40, 5, tzinfo=UTC)) == 1_000_000_000_000_005


def test_a_date_of_test_rows_outranks_one_of_validation_rows():
    at, times = np.zeros(3, np.int8), np.array([split.microseconds(moment) for moment in (SPRING, AUTUMN, AUTUMN)])
    assert split.cut_off(at, times, AUTUMN, SPRING).tolist() == [True, True, True]
    assert at.tolist() == [TEST, TEST, TEST]
    at = np.zeros(3, np.int8)
    assert split.cut_off(at, times, None, None).tolist() == [False, False, False]
    assert at.tolist() == [TRAIN, TRAIN, TRAIN]


def deviation(counts: dict[str, list[int]]) -> Any:
    at = [number for number, name in enumerate(SPLITS) for _ in range(sum(counts[name]))]
    labels = [label for name in SPLITS for label, count in enumerate(counts[name]) for _ in range(count)]
    return split.deviation(np.array(at, np.int8), np.array(labels, np.int32))


def test_the_class_furthest_from_its_share_is_found():
    found = deviation({"train": [700, 700], "validation": [100, 100], "test": [150, 250]})
    assert (found.split, found.share, found.whole) == ("test", pytest.approx(0.375), pytest.approx(0.475))
    assert found.label == 0
    assert not found.chance


def test_a_deviation_that_hashing_gives_is_called_chance():
    for seed in range(5):
        units = places(MANY, seed, "split")
        labels = np.array([number % 7 == 0 for number in range(len(MANY))], np.int32)
        found = split.deviation(split.assign(units, 0.1, 0.2), labels)
        assert found is not None
        assert found.chance


def test_a_split_without_rows_is_not_off_balance():
    found = deviation({"train": [700, 300], "validation": [60, 40], "test": [0, 0]})
    assert (found.split, found.share, found.whole) == ("validation", 0.6, pytest.approx(760 / 1100))


@pytest.mark.parametrize(("more", "chance"), [(-189, False), (-188, True), (100, True), (188, True), (189, False)])
def test_beyond_chance_is_what_a_draw_without_putting_back_gives_once_in_a_thousand_over_all_classes(more, chance):
    # half of all rows are drawn for the test split, and half are of class 1; 3 splits of 2 classes are looked at
    apart = abs(more) / stats.hypergeom(40_000, 20_000, 20_000).std()
    assert (apart < stats.norm.isf(0.001 / 2 / 6)) == chance
    one, other = 10_000 - more, 10_000 + more
    found = deviation({"train": [one, other], "validation": [0, 0], "test": [other, one]})
    assert found.chance == chance


def test_a_single_row_or_a_single_class_has_no_balance():
    assert deviation({"train": [1], "validation": [0], "test": [0]}) is None
    assert deviation({"train": [5], "validation": [3], "test": [1]}) is None
    assert split.deviation(np.zeros(0, np.int8), np.zeros(0, np.int32)) is None


def test_rows_without_a_label_do_not_count():
    at, labels = np.array([0, 0, 1, 1], np.int8), np.array([0, -1, -1, 0], np.int32)
    assert split.deviation(at, labels) is None
