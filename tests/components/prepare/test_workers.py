"""Workers change how long it takes, and nothing else; none outlives its parent; a dead one is told in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tuneline.errors import InputError, ServiceError
from tuneline.prepare.workers import FEW, Pool

pytestmark = pytest.mark.medium

TASKS = [(number, 0.02 if number % 5 == 0 else 0.0) for number in range(40)]


class Square:
    """Squares a number, some of them slowly, and tells who did it."""

    def __call__(self, task: tuple[int, float]) -> tuple[int, int]:
        number, seconds = task
        time.sleep(seconds)
        return number**2, os.getpid()


class Fail:
    """Does what its task says."""

    def __call__(self, task: str) -> str:
        if task == "bad input":
            raise InputError("train.csv: row 7: no text")
        if task == "bug":
            raise ZeroDivisionError("of a worker")
        if task in ("SIGKILL", "SIGSEGV"):
            os.kill(os.getpid(), getattr(signal, task))
        return task


def children() -> list[int]:
    return [
        child.pid for child in psutil.Process().children() if "tuneline.prepare.workers" in " ".join(child.cmdline())
    ]


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    yield
    assert children() == []


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_come_in_the_order_of_the_tasks(processes):
    with Pool(processes) as pool:
        answers = list(pool.map(Square(), TASKS))
    assert [number for number, _ in answers] == [number**2 for number in range(40)]
    assert len({process for _, process in answers}) == processes
    assert (os.getpid() in {process for _, process in answers}) == (processes == 1)


def test_a_few_tasks_start_no_process():
    with Pool(4) as pool:
        assert {process for _, process in pool.map(Square(), TASKS[:FEW])} == {os.getpid()}
        assert children() == []


def test_a_pool_works_off_one_kind_of_task_after_the_other():
    with Pool(2) as pool:
        first = {process for _, process in pool.map(Square(), TASKS)}
        assert list(pool.map(Fail(), ["a"] * 9)) == ["a"] * 9
        assert {process for _, process in pool.map(Square(), TASKS)} == first


def test_tasks_are_drawn_no_faster_than_they_are_worked_off():
    drawn = 0

    def tasks() -> Iterator[tuple[int, float]]:
        nonlocal drawn
        for task in TASKS * 10:
            drawn += 1
            yield task

    with Pool(2) as pool:
        answers = pool.map(Square(), tasks())
        for done in range(20):
            next(answers)
            assert drawn <= done + 1 + 12


def test_large_tasks_and_answers_do_not_lock_each_other_out():
    with Pool(2) as pool:
        answers = list(pool.map(Fail(), [letter * 3_000_000 for letter in "abcdefghijkl"]))
    assert [answer[0] for answer in answers] == list("abcdefghijkl")


def test_bad_input_that_a_worker_finds_is_told_as_such():
    with Pool(2) as pool, pytest.raises(InputError, match=r"^train\.csv: row 7: no text$"):
        list(pool.map(Fail(), ["a"] * 8 + ["bad input"] + ["a"] * 8))


def test_an_error_of_a_worker_brings_its_traceback():
    with Pool(2) as pool, pytest.raises(RuntimeError, match="ZeroDivisionError: of a worker") as caught:
        list(pool.map(Fail(), ["a"] * 8 + ["bug"]))
    assert "raise ZeroDivisionError" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("how", "told"), [("SIGKILL", "was killed, most likely for lack of memory"), ("SIGSEGV", "ended by SIGSEGV")]
)
def test_a_worker_that_died_is_told_in_one_line(how, told):
    with Pool(2) as pool, pytest.raises(ServiceError) as caught:
        list(pool.map(Fail(), ["a"] * 8 + [how] + ["a"] * 8))
    assert told in str(caught.value)
    assert "data.workers (now 2)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(how):
    code = (
        "import time; from tests.components.prepare.test_workers import Square\n"
        "from tuneline.prepare.workers import Pool\n"
        "with Pool(2) as pool:\n"
        "    for _ in pool.map(Square(), [(n, 0.0) for n in range(10)] + [(n, 60.0) for n in range(10)]):\n"
        "        print('at work', flush=True)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert parent.stdout
    assert parent.stdout.readline() == "at work\n"
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    parent.send_signal(how)
    parent.wait(timeout=20)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
