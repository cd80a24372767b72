"""kill -9 at random moments of a real training, half of them in the middle of saving, and every checkpoint file harmed.

Run: make bench, or python -m tests.benchmarks.kills --kills 50

First a training of a tiny model is killed and started again, each time from what its checkpoints hold; in the end its
weights must be those of a training that nobody killed, bit for bit. Then a training is killed once, and each file of
its newest checkpoint is truncated, deleted and bit-flipped in turn: that must be told, the older checkpoint used, and
the weights be the same again. Ends with an error where one of these does not hold.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.components.conftest import model_config, prepare_rows
from tests.components.train.killing import BETWEEN, HARMS, SAVING, STARTING, Course, harm, kill_often
from tests.conftest import reviews, write_tiny_checkpoint
from tuneline.config import TrainConfig

SETTINGS = TrainConfig(
    epochs=45, batch_size=8, learning_rate=1e-3, checkpoint_minutes=0, encoder_dropout=True, early_stopping=1000
)
"""A checkpoint after every step; dropout, so that the random generator matters; the best epoch's weights are saved."""
SHORT, SHORT_STEPS = 4, 30
"""Epochs of the training whose files are harmed, and the step after which it is killed, of 44."""


def killed(course: Course, count: int, seed: int) -> bool:
    """Kill the training so often; whether it ends as it should."""
    started = time.perf_counter()
    expected = course.apart().finish()
    found = kill_often(course, count, random.Random(seed), lambda line: print(line, flush=True))
    same = course.finish() == expected
    shown = ", ".join(f"{found[what]} {what}" for what in (SAVING, BETWEEN, STARTING))
    print(
        f"\n{count} kills ({shown}), {time.perf_counter() - started:.0f} s: weights {'' if same else 'NOT '}identical\n"
    )
    return same


def harmed(course: Course, folder: Path) -> bool:
    """Harm each file of the newest checkpoint in each way; whether all is noticed and ends as it should."""
    expected = course.apart().finish()
    process = course.start()
    while len(course.states()) < 2 or course.states()[-1].name < f"step-{SHORT_STEPS:09d}":
        assert process.is_alive(), course.log()
        time.sleep(0.005)
    process.kill()
    process.join()
    older, newest = course.states()[-2:]
    print(f"| file of {newest.name} | {' | '.join(HARMS)} |\n{'|---' * (len(HARMS) + 1)}|")
    good = True
    for file in sorted(path.name for path in newest.iterdir()):
        answers = [_harmed(course, newest, older, file, how, folder / f"{file}.{how}", expected) for how in HARMS]
        print(f"| {file} | {' | '.join(answers)} |", flush=True)
        good = good and set(answers) == {"noticed, identical"}
    return good


def _harmed(course: Course, newest: Path, older: Path, file: str, how: str, folder: Path, expected: str) -> str:
    again = course.elsewhere(folder)
    assert course.places
    assert again.places
    shutil.copytree(course.places, again.places)
    harm(again.places / newest.relative_to(course.places) / file, how)
    same = again.finish() == expected
    step = int(older.name.removeprefix("step-"))
    lines = (f"passed over: {newest.name}", f"goes on from the checkpoint of step {step}")
    noticed = all(line in again.log() for line in lines)
    return f"{'noticed' if noticed else 'NOT NOTICED'}, {'identical' if same else 'OTHER WEIGHTS'}"


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_config(write_tiny_checkpoint(folder / "tiny"))
        data = prepare_rows(folder, folder / "tiny", train=reviews(120))
        course = Course(data, model, SETTINGS, folder / "checkpoints", folder / "model")
        good = killed(course, options.kills, options.seed)
        short = replace(course, settings=SETTINGS.model_copy(update={"epochs": SHORT})).elsewhere(folder / "short")
        short.out.parent.mkdir()
        good = harmed(short, folder) and good
    if not good:
        raise SystemExit("a training was not what it should be")


if __name__ == "__main__":
    main()
