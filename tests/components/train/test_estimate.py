"""Lines, ranges and limits: a wrong slope, or a margin forgotten, would plan what then does not fit."""

from __future__ import annotations

import pytest

from tuneline.train.estimate import MARGIN, Line, Memory, Range, checkpoints_in, memory_of, spread_over


def test_a_line_gives_back_the_slope_and_the_base_that_made_the_points():
    found = Line.through([(x, 0.2 + 0.003 * x) for x in (10, 100, 350, 500)])
    assert found.slope == pytest.approx(0.003)
    assert found.base == pytest.approx(0.2)
    assert found.at(1000) == pytest.approx(3.2)


def test_a_slow_step_among_quick_ones_does_not_bend_the_line_as_its_seconds_would():
    points = [(100, 1.0), (200, 2.0), (300, 3.0), (400, 4.0), (400, 40.0)]
    assert Line.through(points).at(200) < 4


@pytest.mark.parametrize(
    "points", [[(100, 2.0)], [(100, 2.0), (100, 2.0)], [(100, 2.0), (200, 1.0)], [(100, 0.1), (200, 3.0)], [(0, 1.0)]]
)
def test_no_line_promises_time_below_zero_or_less_for_more(points):
    line = Line.through(points)
    assert line.base >= 0
    assert line.slope >= 0
    assert line.at(150) > 0


def test_a_range_is_as_wide_as_the_measured_steps_lie_from_their_line():
    line = Line(0.0, 0.01)
    calm = Range.around(100, line, [(n, 0.01 * n) for n in (10, 20, 30)])
    assert (calm.low, calm.expected, calm.high) == pytest.approx((100, 100, 100))
    wild = Range.around(100, line, [(100, 0.5), (100, 1.0), (100, 2.0)])
    assert wild.low == pytest.approx(60)
    assert wild.high == pytest.approx(180)
    assert wild.plus(10).told() == pytest.approx({"low": 70, "expected": 110, "high": 190})


def test_those_that_stand_for_all_are_the_middles_of_equal_parts():
    values = list(range(100, 0, -1))
    chosen = [values[index] for index in spread_over(values, 4)]
    assert chosen == [13, 38, 63, 88]
    assert sum(chosen) / 4 == pytest.approx(sum(values) / 100, rel=0.01)
    assert spread_over([5, 3], 4) == [1, 0]


def test_memory_is_the_line_through_the_two_largest_passes():
    memory = memory_of([(10, 500), (100, 520), (400, 640), (800, 840)], 0.0, 800, 50)
    assert memory.line.slope == pytest.approx(0.5)
    assert memory.peak(1600) == pytest.approx(1240)
    assert memory.peak(400) == pytest.approx(640)


def test_a_pass_that_fits_stays_below_the_limit_and_a_larger_one_would_not():
    memory = Memory(Line(500, 0.5), floor=500, heaviest=800, longest=50)
    tokens = memory.fitting(800)
    assert tokens == int((800 * MARGIN - 500) / 0.5)
    assert memory.peak(tokens) <= 800 * MARGIN < memory.peak(tokens + 2)


def test_what_does_not_even_take_one_text_has_no_pass_that_fits():
    assert Memory(Line(500, 0.5), floor=500, heaviest=800, longest=50).fitting(540) is None
    assert Memory(Line(500, 0.5), floor=900, heaviest=800, longest=50).fitting(800) is None
    assert Memory(Line(500, 0.0), floor=500, heaviest=800, longest=50).fitting(800) == 2**24


@pytest.mark.parametrize(
    ("seconds", "steps", "minutes", "expected"), [(59, 10, 1, 1), (61, 10, 1, 2), (3600, 10, 1, 10), (5, 10, 0, 10)]
)
def test_checkpoints_are_counted_as_training_saves_them(seconds, steps, minutes, expected):
    assert checkpoints_in(seconds, steps, minutes) == expected
