"""pip's settings of this machine, made to hold inside a build."""

from __future__ import annotations

import configparser
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tuneline_pipelines.pip_settings import pip_files


def config(files: dict[str, bytes]) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser()
    parser.read_string(files["pip.conf"].decode())
    return parser["global"]


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test sets."""
    for name in ("PIP_CERT", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://pypi.example.com/simple\nconstraint = own.txt\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))


def test_an_index_is_taken_over_and_what_is_not_of_a_build_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_TRUSTED_HOST", "pypi.example.com")
    with pip_files() as (files, share_network):
        found = config(files)
    assert found["index-url"] == "https://pypi.example.com/simple"
    assert found["trusted-host"] == "pypi.example.com"
    assert "constraint" not in found
    assert not share_network


def test_certificates_go_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_bytes(b"a certificate")
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "own.pem"))
    with pip_files() as (files, _):
        assert config(files)["cert"] == "/pip/certificates.pem"
        assert files["certificates.pem"] == b"a certificate"


def test_folders_of_wheels_and_an_index_on_the_disk_are_served_while_it_builds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/a.whl").write_bytes(b"wheel")
    (tmp_path / "mirror/simple/a").mkdir(parents=True)
    (tmp_path / "mirror/files").mkdir()
    (tmp_path / "mirror/files/a.whl").write_bytes(b"file")
    (tmp_path / "mirror/.ssh").mkdir()
    (tmp_path / "mirror/.ssh/config.html").write_text("a user's own")
    (tmp_path / "mirror/notes.txt").write_text("a user's own")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path}/wheels https://more.example.com/wheels")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "mirror/simple").as_uri())
    with pip_files() as (files, share_network):
        found = config(files)
        wheels, other = found["find-links"].split()
        assert other == "https://more.example.com/wheels"
        assert share_network
        with urllib.request.urlopen(f"{wheels}a.whl") as answer:
            assert answer.read() == b"wheel"
        with urllib.request.urlopen(f"{found['extra-index-url']}/a/../../files/a.whl") as answer:
            assert answer.read() == b"file"
        for beside in ("../.ssh/config.html", "../notes.txt"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{found['extra-index-url']}/{beside}")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{wheels}a.whl")


def test_settings_stay_the_same_so_that_the_engine_s_cache_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pip_files() as (first, _), pip_files() as (beside, _):
        assert beside != first
    with pip_files() as (again, _):
        assert again == first
