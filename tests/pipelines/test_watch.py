"""What the runner prints becomes progress, seconds and a log."""

from __future__ import annotations

import io

from tuneline_pipelines.watch import Watcher


def watch(text: str) -> tuple[Watcher, list[tuple[str, int, int, str]], str]:
    told: list[tuple[str, int, int, str]] = []
    log = io.StringIO()
    watcher = Watcher(log, lambda *facts: told.append(facts))
    watcher.write(text)
    return watcher, told, log.getvalue()


def test_progress_and_remarks_of_a_step_are_told() -> None:
    _, told, _ = watch("    [train] 3/9 steps | loss 0.4 | ETA 0:06\n    [prepare] 4 rows removed\n    [other] noise\n")
    assert told == [("train", 3, 9, "steps | loss 0.4 | ETA 0:06"), ("prepare", 0, 0, "4 rows removed")]


def test_lines_may_come_in_pieces_and_colours_are_dropped_from_the_log() -> None:
    watcher, told, _ = watch("    [train] 1/2 st")
    assert told == []
    watcher.write("eps\n")
    assert told == [("train", 1, 2, "steps")]
    assert watch("\x1b[91mred\x1b[0m\n")[2] == "red\n"


def test_the_last_bad_input_is_kept() -> None:
    assert watch("    tuneline: error: a.csv is empty\n    more\n")[0].error == "a.csv is empty"


def test_what_a_server_did_not_do_is_kept_as_the_reason() -> None:
    watcher = watch("ValueError: before\n    tuneline: failed: MLflow at http://x: not to be reached\n    more\n")[0]
    assert (watcher.exception, watcher.error) == ("MLflow at http://x: not to be reached", "")


def test_seconds_of_each_step_are_taken_from_the_runner_s_own_words() -> None:
    start = "09:36:21.615 - INFO - Executing task \x1b[96m'prepare'\x1b[0m\n"
    end = "09:36:25.278 - INFO - Task \x1b[96m'prepare'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m\n"
    watcher, told, _ = watch(start + end)
    assert list(watcher.seconds) == ["prepare"]
    assert told == [("prepare", 0, 0, "started")]


def test_a_reused_step_takes_no_seconds_and_says_so() -> None:
    watcher, told, _ = watch("09:36:21.615 - INFO - Executing task 'train'\n")
    assert watcher.seconds == {"prepare": 0.0}
    assert told == [("prepare", 0, 0, "reused from an earlier run with the same input"), ("train", 0, 0, "started")]
