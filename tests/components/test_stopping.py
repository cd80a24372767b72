"""Signals: heard, ignored, and as they were afterwards."""

from __future__ import annotations

import signal
import threading

import pytest

from tuneline.step import guarded
from tuneline.stopping import SIGNALS, handled, unstoppable


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_goes_to_the_handler_and_afterwards_to_the_one_before(number: signal.Signals) -> None:
    before, heard = signal.getsignal(number), []
    with handled(lambda number, _frame: heard.append(number)):
        signal.raise_signal(number)
    assert heard == [number]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_from_the_start_stays_so(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with handled(lambda number, _frame: pytest.fail(f"{number} was heard")):
            signal.raise_signal(number)
        with guarded():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_step_with_its_status(number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as ended, guarded():
        signal.raise_signal(number)
    assert ended.value.code == 128 + number


def test_nothing_is_heard_while_an_end_is_written_and_all_of_it_afterwards() -> None:
    heard: list[int] = []
    with handled(lambda number, _frame: heard.append(number)):
        with unstoppable():
            for number in SIGNALS:
                signal.raise_signal(number)
        assert heard == []
        for number in SIGNALS:
            signal.raise_signal(number)
    assert heard == list(SIGNALS)


def test_in_a_thread_that_no_signal_reaches_an_end_is_written_as_well() -> None:
    written: list[str] = []

    def write() -> None:
        with unstoppable():
            written.append("the end")

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert written == ["the end"]
