"""A store that speaks S3, with a bucket that not everybody may read: moto's own server, which asks who is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
from infra.local.stack import answers, wait_until

from tests.conftest import free_port, reviews


@dataclass(frozen=True)
class Store:
    """A store that speaks S3 and asks everybody who they are.

    Attributes:
        endpoint: where it answers.
        reader: environment of who may list and read the bucket `texts`, and no more.
        stranger: environment of who is known there and may do nothing.
        versions: key -> the ETag of what was put there.
    """

    endpoint: str
    reader: dict[str, str]
    stranger: dict[str, str]
    versions: dict[str, str]


READS = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::texts"},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::texts/*"},
    ],
}
"""A policy: the two rights that docs and messages name."""


@contextmanager
def serving(log: Path, checkpoint: Path) -> Iterator[Store]:
    """Start it, with a checkpoint below models/, in a process of its own: whether it asks is a setting of all of it."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=stream, stderr=stream, text=True,
        )  # fmt: skip
    try:
        wait_until(lambda: answers(endpoint), server, f"moto's S3, whose log is {log}")
        yield _fill(endpoint, checkpoint)
    finally:
        server.terminate()
        server.wait(timeout=30)


def _fill(endpoint: str, checkpoint: Path) -> Store:
    """Make the bucket and its users; from then on who asks is looked at."""
    asked: dict[str, Any] = {
        "endpoint_url": endpoint, "region_name": "us-east-1", "aws_access_key_id": "owner", "aws_secret_access_key": "x"
    }  # fmt: skip
    api, users = boto3.client("s3", **asked), boto3.client("iam", **asked)
    api.create_bucket(Bucket="texts")
    rows, versions = reviews(300), {}
    parts = {"reviews/2025.csv": rows[:120], "reviews/2026.csv": rows[120:240], "test.csv": rows[240:]}
    for key, part in parts.items():
        lines = ["text,label", *(f"{text},{label}" for text, label in part)]
        answer = api.put_object(Bucket="texts", Key=key, Body="\n".join(lines).encode())
        versions[key] = answer["ETag"].strip('"')
    for path in checkpoint.iterdir():
        api.upload_file(str(path), "texts", f"models/tiny/{path.name}")
    people = []
    for name in ("reader", "stranger"):
        users.create_user(UserName=name)
        made = users.create_access_key(UserName=name)["AccessKey"]
        people.append(_environment(endpoint, made["AccessKeyId"], made["SecretAccessKey"]))
    users.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=json.dumps(READS))
    ask = Request(f"{endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}, method="POST")
    urlopen(ask, timeout=10).close()
    return Store(endpoint, people[0], people[1], versions)


def _environment(endpoint: str, key: str, secret: str) -> dict[str, str]:
    """What tells boto3 where the store is and who asks, and keeps it from this machine's own profiles."""
    return {
        "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }  # fmt: skip
