"""Work goes on when nobody hears of it any more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.medium

PLAIN = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
"""An environment that takes nothing for a terminal that is none."""
WORK = """
import sys

from tuneline_pipelines.console import remark, told
from tuneline_pipelines.show import LiveSteps

with LiveSteps(told) as live:
    live.tell("train", 1, 9, "steps")
    live.tell("train", 0, 0, "a line")
    print("begun", flush=True)
    sys.stdin.readline()
    for done in range(2, 10):
        live.tell("train", done, 9, "steps")
        live.tell("train", 0, 0, "a line" * 10_000)
remark("the end")
print(f"ended {told.is_terminal}", flush=True)
"""


@pytest.mark.parametrize("lost", ["a terminal that is closed", "a pipe that nobody reads", "a full disk"])
def test_work_goes_on_when_what_it_tells_cannot_be_told(lost: str) -> None:
    reader = -1
    if lost.startswith("a terminal"):
        reader, writer = os.openpty()
    elif lost.startswith("a pipe"):
        reader, writer = os.pipe()
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    work = subprocess.Popen(
        [sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writer, text=True,
        env=PLAIN,
    )  # fmt: skip
    os.close(writer)
    assert work.stdout
    assert work.stdout.readline() == "begun\n"
    if reader >= 0:
        os.close(reader)
    out, _ = work.communicate("\n", timeout=60)
    assert (out, work.returncode) == ("ended False\n", 0)


def test_work_goes_on_without_a_stderr() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, WORK], input="\n", stdout=subprocess.PIPE, text=True,
        check=True, env=PLAIN,
    )  # fmt: skip
    assert done.stdout == "begun\nended False\n"
