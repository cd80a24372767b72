"""The page that leads to a first run names what is there, and the Job that makes the bucket does."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.conftest import ROOT
from tests.infra.render import find, pod_templates
from tests.infra.render import render as rendered

PAGE = (ROOT / "docs/first-cluster-run.md").read_text(encoding="utf-8")


def test_the_page_names_folders_files_and_objects_that_are_there() -> None:
    for path in set(re.findall(r"(?<!/)\binfra/[\w./-]*[\w]", PAGE)):
        assert (ROOT / path).exists(), path
    there = {f"{one['kind'].lower()}/{one['metadata']['name']}" for one in rendered("base")}
    named = set(re.findall(r"\b(?:deployment|job|cronjob|service)/[\w-]+", PAGE)) - {"service/ml-pipeline"}
    assert named
    assert named <= there


def test_the_page_makes_every_secret_that_a_pod_reads_with_its_keys() -> None:
    made = {
        name: set(re.findall(r"([\w-]+)=", text.replace(r"\n", " ")))
        for text, name in re.findall(r"printf '(.*?)' .*secret tuneline (\S+)", PAGE)
    }
    read: dict[str, set[str]] = {"s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}}  # whole, as boto3 names them
    for manifest in rendered("base"):
        for template in pod_templates(manifest):
            for container in template["spec"]["containers"]:
                for variable in container.get("env", []):
                    if key := variable.get("valueFrom", {}).get("secretKeyRef"):
                        read.setdefault(key["name"], set()).add(key["key"])
    assert made == read


def test_the_bucket_is_made_once() -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        template = next(pod_templates(find("overlays/kind", "Job", "bucket")))
        maps = {one["metadata"]["name"]: one["data"] for one in rendered("overlays/kind") if one["kind"] == "ConfigMap"}
        container = template["spec"]["containers"][0]
        environment = os.environ | maps[container["envFrom"][0]["configMapRef"]["name"]]
        environment |= {"AWS_ACCESS_KEY_ID": "planted", "AWS_SECRET_ACCESS_KEY": "planted"}
        environment |= {"MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}"}
        words = [sys.executable, *container["command"][1:]]
        for _ in range(2):
            done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stdout == "bucket: tuneline is there\n"
    finally:
        server.stop()
