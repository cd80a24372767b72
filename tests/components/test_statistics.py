"""Intervals and tests against published and exact values."""

from __future__ import annotations

import itertools
import warnings
from math import comb

import numpy as np
import pytest
from scipy import optimize, special, stats

from tuneline.statistics import (
    ALPHA,
    RESAMPLES,
    Counts,
    Estimate,
    bootstrap,
    confusion,
    fisher_less,
    holm,
    mcnemar,
    mean,
    score_interval,
    share,
    tabulate,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "rows"), [(0, 1), (1, 1), (0, 10), (1, 10), (9, 10), (10, 10), (7, 10), (450, 500), (24_000, 25_000)]
)
def test_wilson_is_the_score_interval(right, rows):
    wanted = stats.binomtest(right, rows).proportion_ci(method="wilson")
    assert share(right, rows) == (right / rows, pytest.approx(wanted.low), pytest.approx(wanted.high))


def test_a_share_of_no_rows_may_be_anything():
    assert share(0, 0) == (0.0, 0.0, 1.0)
    low, high = wilson(np.array([0, 3]), np.array([0, 3]))
    assert (low[0], high[0], high[1]) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (0, 5), (8, 2), (60, 50), (700, 620), (1250, 1250)])
def test_mcnemar_is_the_exact_binomial_tail(wins, losses):
    total = wins + losses
    exact = sum(comb(total, won) for won in range(wins, total + 1)) / 2**total
    assert mcnemar(wins, losses) == pytest.approx(exact, rel=1e-9)


def test_mcnemar_of_one_pair_is_a_number_and_of_none_is_empty():
    assert type(mcnemar(8, 2)) is float
    assert mcnemar(np.array([], int), np.array([], int)).shape == (0,)


def test_mcnemar_takes_many_pairs_at_once():
    assert mcnemar(np.array([[5, 0], [8, 2]]), np.array([[0, 5], [2, 8]])).tolist() == [
        [mcnemar(5, 0), mcnemar(0, 5)], [mcnemar(8, 2), mcnemar(2, 8)],
    ]  # fmt: skip


@pytest.mark.parametrize("table", [(1, 5, 90, 95), (5, 5, 0, 5), (0, 5, 5, 5), (30, 60, 800, 940)])
def test_fishers_test_is_exact(table):
    right, rows, of_rest, rest = table
    wanted = stats.fisher_exact([[right, rows - right], [of_rest, rest - of_rest]], alternative="less").pvalue
    assert fisher_less(*table) == pytest.approx(wanted)


def test_holm_steps_down_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@pytest.mark.parametrize(
    ("wins", "losses", "rows"),
    [(12, 2, 50), (0, 0, 50), (14, 0, 54), (40, 60, 872), (45, 1, 50), (1, 45, 50), (1, 0, 3)],
)
def test_at_the_ends_of_tangos_interval_the_score_of_the_likeliest_variance_is_a_normal_quantile(wins, losses, rows):
    for end, wanted in zip(score_interval(wins, losses, rows), (1.959964, -1.959964), strict=True):
        difference = float(end)

        def unlikelihood(lost, difference=difference):
            alike = 1 - 2 * lost - difference
            return -(special.xlogy(wins, lost + difference) + special.xlogy(losses, lost)
                     + special.xlogy(rows - wins - losses, alike))  # fmt: skip

        bounds = max(0.0, -difference), (1 - difference) / 2
        lost = optimize.minimize_scalar(unlikelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        spread = np.sqrt(rows * (2 * lost + difference * (1 - difference)))
        assert (wins - losses - rows * difference) / spread == pytest.approx(wanted, abs=1e-3)


def test_a_mean_has_the_interval_of_students_book_where_nothing_is_skewed():
    values = np.concatenate([np.linspace(-1, 1, 2001)])
    found, half = mean(values), 1.959964 * values.std() / np.sqrt(len(values))
    assert found == (pytest.approx(0, abs=1e-12), pytest.approx(-half), pytest.approx(half))


def test_at_the_ends_of_halls_interval_the_transformed_mean_is_a_normal_quantile():
    values = np.array([0.0, 0.1, 0.1, 0.2, 0.3, 0.5, 0.9, 1.4, 3.0, 7.5])
    found, root = mean(values), np.sqrt(len(values))
    skew = stats.skew(values)
    for end, wanted in ((found.high, -1.959964), (found.low, 1.959964)):
        studentized = (values.mean() - end) * root / values.std()
        cubic = studentized + skew * studentized**2 / (3 * root) + skew**2 * studentized**3 / (27 * len(values))
        assert cubic + skew / (6 * root) == pytest.approx(wanted, abs=1e-5)
    assert mean(np.full(7, 0.25)) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[0.0] * 19 + [20.0], [0.001] * 99 + [9.0]])
def test_the_interval_of_losses_or_costs_does_not_reach_below_0(values):
    assert mean(np.array(values)).low == 0
    assert mean(np.array(values) - 0.01).low < -0.01  # of what may be negative it does


def test_a_skewed_mean_has_a_longer_upper_arm_and_is_covered():
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        found = mean(draw.lognormal(0, 1, 400))
        hits += found.low <= np.exp(0.5) <= found.high
        assert found.high - found.value > found.value - found.low
    assert 925 <= hits <= 970  # the normal interval reaches about 915


def test_rows_are_counted_by_kind():
    labels, answers = np.array([0, 2, 0, 2, 1]), np.array([-1, 2, -1, 0, 1])
    kinds = sorted(np.stack(tabulate(labels, answers), 1).tolist())
    assert kinds == [[0, -1, 2], [1, 1, 1], [2, 0, 1], [2, 2, 1]]
    assert confusion(labels, answers, 3).tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 1]]


def test_kinds_of_rows_are_never_taken_for_one_another_whatever_the_ranges_of_the_columns():
    kinds = [kind for kind in itertools.product(range(5), (-1, 0, 1), (-1, 0, 1, 2)) if kind != (0, 0, 0)]
    rows = np.array([kind for number, kind in enumerate(kinds) for _ in range(number % 3 + 1)])
    mixed = rows[np.random.default_rng(0).permutation(len(rows))]
    found = {tuple(kind): count for *kind, count in np.stack(tabulate(*mixed.T), 1).tolist()}
    assert found == {kind: number % 3 + 1 for number, kind in enumerate(kinds)}


def test_counts_have_a_cell_for_classes_that_do_not_occur():
    assert confusion(np.array([0]), np.array([1]), 3).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def by_the_book(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The BCa interval of a mean (Efron 1987) with the jackknife over every single row."""
    rows = np.repeat(values, counts)
    draws = np.random.default_rng(0).multinomial(len(rows), counts / len(rows), size=RESAMPLES) @ values / len(rows)
    left_out = np.array([np.delete(rows, at).mean() for at in range(len(rows))])
    pull = left_out.mean() - left_out
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    shift = stats.norm.ppf(np.mean(draws < rows.mean()) + np.mean(draws == rows.mean()) / 2)
    at = [
        stats.norm.cdf(shift + (shift + z) / (1 - acceleration * (shift + z)))
        for z in stats.norm.ppf([ALPHA, 1 - ALPHA])
    ]
    return tuple(np.quantile(draws, at))


def test_the_bootstraps_ends_are_corrected_for_bias_and_skewness_as_its_inventor_has_it():
    values, counts = np.array([0.0, 1.0, 16.0]), np.array([30, 9, 2])
    (found,) = bootstrap(counts, lambda tables: tables @ values[:, None] / tables.sum(1, keepdims=True))
    low, high = by_the_book(values, counts)
    assert found == (pytest.approx(41 / 41), pytest.approx(low), pytest.approx(high))
    plain = np.quantile(
        np.random.default_rng(0).multinomial(41, counts / 41, size=RESAMPLES) @ values / 41, [ALPHA, 1 - ALPHA]
    )
    assert low > plain[0] + 0.05  # so that the correction is seen
    assert high > plain[1] + 0.3


def test_a_statistic_whose_resamples_all_lie_on_one_side_of_it_has_an_interval():
    counts = np.full(8, 500)
    low, high = bootstrap(counts, lambda tables: np.stack([-tables.max(1), tables.max(1)], 1) / 4000)
    assert -low.high == high.low == pytest.approx(0.128, abs=0.004)
    assert -low.low >= -low.high
    assert high.high >= high.low


def test_what_is_the_same_in_every_resample_is_certain():
    assert bootstrap(np.array([40]), lambda tables: tables / tables.sum(1, keepdims=True)) == [(1.0, 1.0, 1.0)]


def test_the_bootstrap_finds_the_interval_of_a_share():
    counts = np.array([450, 50])
    (found,) = bootstrap(counts, lambda tables: tables[:, :1] / tables.sum(1, keepdims=True))
    assert found == (0.9, pytest.approx(wilson(450, 500)[0], abs=3e-3), pytest.approx(wilson(450, 500)[1], abs=3e-3))
    assert bootstrap(counts, lambda tables: tables[:, :1] / 500) == [found]  # the same seed, the same interval
    assert bootstrap(counts, lambda tables: tables[:, :1] / 500, seed=1) != [found]


def test_macro_f1_of_many_tables_at_once_is_that_of_each():
    labels, answers = np.array([0, 0, 1, 2]), np.array([0, 1, 1, -1])
    tables = np.array([[5, 1, 3, 2], [1, 0, 0, 0], [0, 0, 0, 4]])
    assert Counts.of(tables, labels, answers, 4).macro_f1().tolist() == pytest.approx(
        [(10 / 11 + 6 / 7 + 0) / 3, 1.0, 0.0]
    )


def test_a_class_that_is_neither_true_nor_answered_counts_in_no_macro_f1_and_warns_of_nothing():
    labels, answers = np.array([1, 1, 2]), np.array([1, 2, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Counts.of(np.array([[4, 2, 3]]), labels, answers, 4)
        assert [part.tolist() for part in found] == [[[0, 6, 3, 0]], [[0, 4, 5, 0]], [[0, 4, 3, 0]]]
        assert found.macro_f1().tolist() == pytest.approx([(8 / 10 + 6 / 8) / 2])


def test_of_no_rows_macro_f1_is_0():
    assert Counts.of(np.array([[0, 0]]), np.array([0, 1]), np.array([0, 0]), 2).macro_f1().tolist() == [0.0]


def test_an_estimate_reads_as_value_and_interval():
    assert str(Estimate(0.5, 0.25, 0.75)) == "0.5000 [0.2500, 0.7500]"
