"""Progress lines: how often they come, and what they say."""

from __future__ import annotations

import re
from itertools import pairwise

from tuneline.progress import Progress, say


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_line_tells_step_count_facts_and_time_left(capsys):
    clock = Clock()
    progress = Progress("train", 61, "steps", clock)
    progress.update(1, loss=0.69314, examples_per_second=12.345)
    clock.now = 10
    progress.update(11, loss=0.41239, examples_per_second=12.345)
    assert lines_of(capsys) == [
        "[train] 1/61 steps | loss 0.693 | examples per second 12.3 | ETA ?",
        "[train] 11/61 steps | loss 0.412 | examples per second 12.3 | ETA 0:50",
    ]


def test_time_left_counts_minutes_and_leaves_the_slow_first_unit_out(capsys):
    clock = Clock()
    clock.now = 100  # spent before the first unit was done
    progress = Progress("train", 130, "steps", clock)
    progress.update(1)
    clock.now = 104
    progress.update(5)
    assert lines_of(capsys)[-1] == "[train] 5/130 steps | ETA 2:05"


def test_at_most_two_lines_a_second_between_the_first_and_the_last(capsys):
    clock = Clock()
    progress = Progress("prepare", 1000, "texts", clock)
    for done in range(1, 1001):
        clock.now = done / 100
        progress.update(done)
    told = lines_of(capsys)
    counts = [int(re.findall(r" (\d+)/1000", line)[0]) for line in told]
    assert (counts[0], counts[-1]) == (1, 1000)
    assert len(counts) <= 22
    assert all(after - before >= 50 for before, after in pairwise(counts[:-1]))


def test_the_first_and_the_last_line_come_however_quick(capsys):
    progress = Progress("evaluate", 3, "texts", Clock())
    for done in (1, 2, 3):
        progress.update(done)
    assert lines_of(capsys) == ["[evaluate] 1/3 texts | ETA ?", "[evaluate] 3/3 texts | ETA 0:00"]


def test_a_single_unit_is_told_as_done(capsys):
    Progress("evaluate", 1, "texts").update(1)
    assert lines_of(capsys) == ["[evaluate] 1/1 texts | ETA 0:00"]


def test_say_prints_one_line(capsys):
    say("[register] done")
    assert lines_of(capsys) == ["[register] done"]
