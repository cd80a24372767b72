"""Which image a step runs in: content tags, recorded digests, and what compile makes of them. No engine needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tuneline.errors import InputError
from tuneline_pipelines import build, images
from tuneline_pipelines.compile import check, compile_pipeline
from tuneline_pipelines.resources import Profile

DIGEST = f"registry.example.com/ml/tuneline-train@sha256:{'a' * 64}"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what images are built from, taken for the checkout."""
    root = tmp_path / "tree"
    for name in ("docker", "components"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("constraints.txt", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, root)
    monkeypatch.setattr("tuneline_pipelines.images.tuneline.__file__", str(root / "components/tuneline/__init__.py"))
    return root


def test_the_dockerfile_is_clean() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "docker/Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_default_base_is_the_dockerfile_s_and_pinned() -> None:
    assert f"\nARG BASE={images.BASE}\n" in (ROOT / "docker/Dockerfile").read_text()
    assert re.fullmatch(r".+@sha256:[0-9a-f]{64}", images.BASE)


def test_every_target_is_a_stage_in_the_dockerfile_s_order() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert [stage for stage in stages if stage in images.TARGETS] == list(images.TARGETS)


def test_a_tag_is_stable(tree: Path) -> None:
    before = images.name_of("train")
    assert before.startswith("tuneline-train:0.1.0-")
    (tree / "components/tuneline/__pycache__").mkdir(exist_ok=True)
    (tree / "components/tuneline/__pycache__/config.pyc").write_bytes(b"of this machine")
    (tree / "components/tuneline/__pycache__/config.pyc.140123").write_bytes(b"still being written")
    (tree / "docker/pip/pip.conf").write_text("[global]\nindex-url = https://someone:secret@pypi.example.com/simple\n")
    assert images.name_of("train") == before


@pytest.mark.parametrize(
    "path",
    ["components/tuneline/config.py", "docker/Dockerfile", "docker/layer.sh", "constraints.txt", "pyproject.toml"],
)
def test_a_tag_changes_with_what_goes_into_the_image(tree: Path, path: str) -> None:
    before = images.name_of("train")
    with (tree / path).open("a") as file:
        file.write("\n")
    assert images.name_of("train") != before


def test_a_new_name_is_new_content(tree: Path) -> None:
    before = images.name_of("train")
    (tree / "components/tuneline/errors.py").rename(tree / "components/tuneline/faults.py")
    assert images.name_of("train") != before


def test_base_and_cuda_are_in_the_tag() -> None:
    assert images.name_of("train", base="other:1") != images.name_of("train")
    assert "-cuda-" in images.name_of("evaluate", cuda=True)
    assert images.name_of("prepare", cuda=True) == images.name_of("prepare")


def test_without_a_checkout_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tuneline_pipelines.images.tuneline.__file__", str(tmp_path / "a/b/__init__.py"))
    with pytest.raises(InputError, match="images are built from a checkout"):
        images.name_of("train")


def test_compile_names_pushed_images_by_digest_and_warns_of_the_others(tmp_path: Path) -> None:
    images.record("train", DIGEST)
    images.record("prepare", DIGEST.replace("train", "prepare"))
    (note,) = compile_pipeline(tmp_path / "pipeline.yaml", None)
    assert note.startswith("2 images are named by a tag")
    named = check(tmp_path / "pipeline.yaml")
    assert DIGEST in named
    assert DIGEST.replace("train", "prepare") in named
    assert not any("tuneline-train:" in image for image in named)


def test_a_profile_s_own_image_wins_and_its_prefix_names_a_mirror_of_the_digest(tmp_path: Path) -> None:
    images.record("train", DIGEST)
    images.record("prepare", DIGEST.replace("train", "prepare"))
    profile = Profile.model_validate(
        {"images": {"prefix": "mirror.example.com/x"}, "steps": {"train": {"image": "own/train:1"}}}
    )
    compile_pipeline(tmp_path / "pipeline.yaml", None, profile)
    named = check(tmp_path / "pipeline.yaml")
    assert "own/train:1" in named
    assert f"mirror.example.com/x/tuneline-prepare@sha256:{'a' * 64}" in named
    assert DIGEST not in named


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"train": "tuneline-train@sha256:1"}', '{"train": "tuneline-train:1", "code": {}}']
)
def test_a_spoilt_record_is_one_line(own_store: Path, content: str) -> None:
    own_store.mkdir()
    (own_store / "images.json").write_text(content)
    with pytest.raises(InputError, match=r"images\.json: not a JSON object of image digests"):
        images.known()


def test_the_record_names_each_image_by_digest(own_store: Path) -> None:
    images.record("train", DIGEST)
    assert json.loads((own_store / "images.json").read_text())["train"] == DIGEST
    assert images.known() == {"train": DIGEST}


def test_an_image_that_was_pushed_before_the_code_changed_is_told(tree: Path, tmp_path: Path) -> None:
    images.record("train", DIGEST)
    assert images.outdated([DIGEST]) == []
    with (tree / "components/tuneline/config.py").open("a") as file:
        file.write("\n")
    assert images.outdated([DIGEST]) == ["train"]
    assert images.outdated(["own/train:1"]) == []
    old, _ = compile_pipeline(tmp_path / "pipeline.yaml", None)
    assert old.startswith("train: pushed before the code changed")


@pytest.mark.parametrize("registry", ["https://registry.example.com", "a b", "user@host", "host:port", "UPPER"])
def test_what_is_no_registry_is_refused(registry: str) -> None:
    with pytest.raises(InputError, match="--push"):
        build.check_registry(registry)


def test_without_an_engine_it_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("docker")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(InputError, match=r"no Docker engine answers at unix://.*\(No such file or directory\)"):
        build.engine()


def test_without_the_docker_package_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[docker\]' in tuneline's checkout"):
        build.engine()


def test_an_unknown_target_is_told() -> None:
    with pytest.raises(InputError, match="'trian' given; allowed: register, prepare"):
        build.build(["trian"], images.BASE, False, "", lambda *_: None)
