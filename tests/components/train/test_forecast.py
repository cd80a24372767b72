"""What a rehearsal's notes come to: steps, seconds, cost, memory and disk, counted as the training counts them."""

from __future__ import annotations

from typing import Any

import pytest

from tuneline.config import Distributed, TrainConfig
from tuneline.train import checkpoints, loop
from tuneline.train.forecast import KEPT, STEP_MB, UNREAD_BYTES, Forecast

START = {
    "kind": "start", "at": 107.0, "how": "packed rows", "parameters": 1000, "tuned": 500_000, "device": "cpu",
    "limit_mb": 4000.0, "name": "", "threads": 2, "load": 0.4, "host_mb": 300.0, "longest": 40, "pads": False,
    "rows": {"train": 1000, "validation": 100}, "tokens": {"train": 20_000, "validation": 2_000},
    "texts": {"train": 1000, "validation": 100}, "read": {"train": 1000, "validation": 100},
}  # fmt: skip
STEPS = [
    {"kind": "step", "tokens": n, "texts": 16, "seconds": 0.01 + n / 1000, "cpu": n / 1000} for n in (200, 300, 400)
]
NOTES: list[dict[str, Any]] = [
    START,
    {"kind": "heaviest", "tokens": 640, "places": 640},
    {"kind": "pass", "tokens": 10, "mb": 500.0, "seconds": 0.02},
    {"kind": "pass", "tokens": 320, "mb": 532.0, "seconds": 0.3},
    {"kind": "pass", "tokens": 640, "mb": 564.0, "seconds": 0.6},
    {"kind": "batches", "mean": 320.0},
    *STEPS,
    {"kind": "validation", "tokens": 400, "seconds": 0.2, "mb": 564.0},
    {"kind": "validation", "tokens": 1000, "seconds": 0.5, "mb": 564.0},
    {"kind": "checkpoint", "seconds": 0.5, "mb": 12.0, "host_mb": 570.0},
    {"kind": "model", "mb": 4.0},
    {"kind": "end", "mb": 574.0, "host_mb": 574.0},
]


def forecast(notes: list[dict[str, Any]] | None = None, **settings: Any) -> Forecast:
    return Forecast(notes or NOTES, TrainConfig(**settings), began=100.0)


def but(kind: str, **changes: Any) -> list[dict[str, Any]]:
    return [note | changes if note["kind"] == kind else note for note in NOTES]


def test_steps_are_those_of_the_training_loop():
    for settings in (TrainConfig(), TrainConfig(batch_size=7, epochs=5)):
        assert Forecast(NOTES, settings, 0).steps == loop.schedule(1000, settings)[0]


def test_as_many_checkpoints_lie_on_the_disk_as_training_keeps_and_writes():
    assert KEPT == checkpoints.KEEP + 1
    assert forecast().disk_mb() == {"checkpoints": 36.0, "states": 0.0, "model": 4.0}


def test_seconds_are_those_of_all_steps_of_validation_each_epoch_and_of_saving():
    seconds = forecast(epochs=3).seconds()
    assert seconds["start"].expected == pytest.approx(7)
    assert seconds["steps"].expected == pytest.approx(3 * 63 * (0.01 + 0.32))
    assert seconds["validation"].expected == pytest.approx(3 * 2000 * 0.5 / 1000)
    assert seconds["checkpoints"].expected == pytest.approx(0.5)
    assert seconds["total"].expected == pytest.approx(7 + 62.37 + 3 + 0.5)


def test_early_stopping_measures_once_more_and_short_checkpoints_are_saved_often():
    seconds = forecast(epochs=3, early_stopping=1, checkpoint_minutes=0.5).seconds()
    assert seconds["validation"].expected == pytest.approx(4)
    assert seconds["checkpoints"].expected == pytest.approx(0.5 * (1 + 66.37 // 30))


def test_what_is_compiled_on_the_first_step_is_counted_once():
    notes = [note | {"seconds": 30.0} if note.get("tokens") == 10 else note for note in NOTES]
    assert forecast(notes).seconds()["steps"].expected - forecast().seconds()["steps"].expected == pytest.approx(29.98)


def test_the_cost_is_of_what_the_trainings_own_meter_counts():
    assert forecast().cost() is None
    cost = forecast(epochs=3, price_per_hour=36.0).cost()
    assert cost is not None
    assert cost.expected == pytest.approx((62.37 + 3 + 0.5) / 100)


def test_cached_states_are_computed_once_for_all_texts_and_lie_on_the_disk():
    notes = [*NOTES, {"kind": "states", "mb": 80.0, "tokens": 1000, "seconds": 0.25, "why": ""}]
    assert forecast(notes).seconds()["states"].expected == pytest.approx(22_000 * 0.25 / 1000)
    assert forecast(notes).disk_mb()["states"] == 80.0


def test_on_a_busy_machine_the_low_end_is_what_the_processor_itself_took():
    calm, busy = (forecast(but("start", load=load)).seconds()["steps"] for load in (0.4, 5.0))
    assert calm.low == pytest.approx(calm.expected)
    assert busy.low == pytest.approx(busy.expected * (0.3 / 2) / 0.31)
    assert busy.high == calm.high


def test_the_peak_is_what_was_measured_with_what_a_step_loads_beside():
    memory = forecast().memory
    assert memory is not None
    arrays = (22_000 * 8 + 1000 * 112) / 1e6
    assert memory.peak(640) == pytest.approx(574 + STEP_MB + arrays)
    assert memory.line.slope == pytest.approx(0.1)
    assert memory.peak(320) == pytest.approx(574 - 32 + STEP_MB + arrays)


def test_kernels_of_lengths_that_were_not_met_are_counted_by_those_that_were():
    shapes = {"kind": "shapes", "all": 30, "seen": 12, "new": 8, "grown_mb": 72.0}
    for notes, more in (([*NOTES, shapes], 18 * 9.0), ([*NOTES, shapes | {"new": 0}], 0), (NOTES, 0)):
        memory, plain = forecast(notes).memory, forecast().memory
        assert memory is not None and plain is not None
        assert memory.peak(640) - plain.peak(640) == pytest.approx(more)


def test_several_processes_hold_their_gradients_twice_and_no_step_beside():
    memory = forecast(distributed=Distributed(gpus_per_node=2), batch_size=16).memory
    assert memory is not None
    assert memory.peak(640) == pytest.approx(574 + 4 * 0.5 + (22_000 * 8 + 1000 * 112) / 1e6)


def test_on_a_gpu_only_what_the_gpu_holds_counts():
    memory = forecast(but("start", device="cuda")).memory
    assert memory is not None
    assert memory.peak(640) == pytest.approx(574)


def test_a_sample_stands_for_all_texts():
    seen = forecast(but("start", texts={"train": 10_000, "validation": 1_000}))
    assert seen.steps == 3 * 625
    assert seen.tokens == {"train": 200_000, "validation": 20_000}
    memory, small = seen.memory, forecast().memory
    assert memory is not None and small is not None
    more = 198_000 * UNREAD_BYTES + 198_000 * 8 + 9_000 * 112
    assert memory.peak(640) - small.peak(640) == pytest.approx(more / 1e6)


def test_the_pass_that_fits_counts_tokens_where_rows_are_padded():
    notes = [note | {"places": 800} if note["kind"] == "heaviest" else note for note in NOTES]
    packed, padded = forecast().pass_tokens(900), forecast(notes).pass_tokens(900)
    assert packed is not None and padded is not None
    assert padded == pytest.approx(packed * 0.8, abs=1)
    assert forecast().pass_tokens(600) is None


def test_a_rehearsal_that_ended_early_still_tells_what_would_fit():
    seen = forecast(NOTES[:4])
    assert not seen.whole
    assert seen.memory is not None
    assert seen.memory.peak(640) == pytest.approx(532 + 320 * 32 / 310 + STEP_MB + 0.288)
    assert forecast(NOTES[:1]).memory is None
