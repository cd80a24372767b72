"""Several training processes on this machine, one a GPU: torchrun as a child of the step.

Without a GPU they are processes on the CPU, so that the same code runs on a laptop: tuneline run text data.train=my.csv
train.distributed.gpus_per_node=2.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tuneline.config import ModelConfig, TrainConfig
from tuneline.errors import InputError
from tuneline.machine import threads_each
from tuneline.stopping import not_ignored
from tuneline.train.record import Follower, JobFailed, Listener, Numbers, Recorder, write_config


def fit(data: Path, model: ModelConfig, settings: TrainConfig, out: Path, recorder: Recorder | None = None) -> Numbers:
    """Train in `settings.distributed.gpus_per_node` processes; arguments and result as of train.train.

    Raises:
        InputError: bad input that a process found, or more GPUs asked for than there are.
        JobFailed: a process ended otherwise.
    """
    count = settings.distributed.gpus_per_node
    require_gpus(count)
    with tempfile.TemporaryDirectory() as folder:
        config, record = Path(folder) / "config.json", Path(folder) / "record.jsonl"
        write_config(config, model, settings, record, lease=None)
        follower, listener = Follower(record, recorder), Listener()
        code = _run(count, [str(data), str(out), str(config)], listener, follower)
        if listener.error:
            raise InputError(listener.error)
        if code:
            raise JobFailed(f"train.distributed.gpus_per_node: a process of {count} ended with status {code}")
        return follower.finish(out)


def require_gpus(count: int) -> None:
    """Refuse more processes than this machine has GPUs; without any, they are on the CPU.

    Raises:
        InputError: it has some, but too few.
    """
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() < count:
        raise InputError(
            f"train.distributed.gpus_per_node: {count} given; this machine has {torch.cuda.device_count()}, so at most "
            f"that (in a cluster, the profile's steps.train.accelerator.count)"
        )


def _run(count: int, arguments: list[str], listener: Listener, follower: Follower) -> int:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    # Those that are ignored it would handle too, and so end with a terminal that nohup has it outlive.
    signals = {signal.SIGTERM, *not_ignored()}
    torchrun += ["--signals-to-handle", ",".join(sorted(number.name for number in signals))]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads_each(count)), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*torchrun, "-m", "tuneline.train", *arguments], env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        for line in process.stdout or ():
            listener.line(line.rstrip("\n"))
            follower.read()
        return process.wait()
    finally:  # the step is stopped, or its MLflow server failed
        process.terminate()
        process.wait()
