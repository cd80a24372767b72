"""The weights and the sampling plan count every class alike."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneline.prepare.imbalance import plan


def test_a_class_three_times_as_large_weighs_a_third() -> None:
    made = plan([300, 100])
    assert made.class_weights == pytest.approx([2 / 3, 2])
    assert made.sampling.draws == [200, 200]
    assert made.sampling.repeats == pytest.approx([2 / 3, 2])


def test_a_class_without_rows_is_left_out() -> None:
    made = plan([10, 0, 30])
    assert made.class_weights == pytest.approx([2, 0, 2 / 3])
    assert made.sampling.draws == [20, 0, 20]


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=200).filter(any))
def test_every_class_counts_alike_and_the_mean_weight_is_one(counts: list[int]) -> None:
    made = plan(counts)
    present = sum(count > 0 for count in counts)
    totals = [weight * count for weight, count in zip(made.class_weights, counts, strict=True) if count]
    assert totals == pytest.approx([sum(counts) / present] * present)
    assert sum(totals) / sum(counts) == pytest.approx(1)
    assert sum(made.sampling.draws) == pytest.approx(sum(counts))
    assert json.loads(json.dumps(asdict(made))) == asdict(made)
