"""checkov over all that infra/ renders; what it would have and does not get says why, beside the manifest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.infra.render import LOCAL, render_text


@pytest.mark.slow
def test_checkov_passes_and_every_exception_is_explained(checks: Path, tmp_path: Path) -> None:
    for folder in LOCAL:
        (tmp_path / f"{folder.replace('/', '-')}.yaml").write_text(render_text(folder), encoding="utf-8")
    done = subprocess.run(
        [checks / "checkov", "-d", tmp_path, "--framework", "kubernetes", "--output", "json", "--skip-download"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    failed = [f"{one['check_id']} {one['resource']} ({one['file_path']})" for one in report["results"]["failed_checks"]]
    assert failed == []
    assert report["results"]["parsing_errors"] == []
    assert report["summary"]["passed"] > 1000

    excepted = {
        (one["check_id"], one["check_result"]["suppress_comment"]) for one in report["results"]["skipped_checks"]
    }
    assert all(len(reason) > 40 for _, reason in excepted), excepted
