"""Runs inside an image, as `python3 work.py STEP`: does the step's work once in /work, and tells what it may do there.

The work is the step's own function, without KFP around it. register needs MLflow, which shares its network namespace.
"""

import json
import os
import sys
from pathlib import Path

WORK = Path("/work")
DATA, MODEL, EVALUATION = WORK / "data", WORK / "model", WORK / "evaluation"


def prepare() -> None:
    from tuneline.config import DataConfig, ModelConfig
    from tuneline.prepare.prepare import prepare

    prepare(DataConfig(train=str(WORK / "reviews.csv")), ModelConfig(max_length=32), DATA)


def train() -> None:
    from tuneline.config import ModelConfig, TrainConfig
    from tuneline.train.train import train

    train(DATA, ModelConfig(max_length=32), TrainConfig(epochs=1), MODEL)


def evaluate() -> None:
    from tuneline.evaluate.evaluate import evaluate

    evaluate(DATA, MODEL, EVALUATION)


def register() -> None:
    from tuneline.config import RegisterConfig, Rules
    from tuneline.register.register import register
    from tuneline.tracking import step_run

    settings = RegisterConfig(name="reviews", rules=Rules(beats_baseline=False))
    with step_run("register", {}) as run:
        register(EVALUATION, MODEL, settings, WORK / "version.json", run)


def rights() -> dict[str, object]:
    """Who this process is, and what it could do."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    try:
        Path("/opt/tuneline/planted").write_text("")
        writable = True
    except OSError:
        writable = False
    return {
        "user": os.getuid(),
        "group": os.getgid(),
        "capabilities": int(status["CapEff"], 16) | int(status["CapPrm"], 16),
        "writable": writable,
        "interfaces": sorted(os.listdir("/sys/class/net")),
    }


if __name__ == "__main__":
    step = sys.argv[1]
    {"prepare": prepare, "train": train, "evaluate": evaluate, "register": register}[step]()
    print(json.dumps(rights()))
