"""What a message may tell of an address: the place, and not who may go there."""

from __future__ import annotations

import pytest

from tuneline.errors import InputError, without_credentials
from tuneline.trouble import told_of


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no postgresql://u:p@db/x here", "no postgresql://db/x here"),
        ("postgresql+psycopg2://u:Ab/Cd9@db:5432/studies", "postgresql+psycopg2://db:5432/studies"),
        ("postgresql://u:a@b@db/x", "postgresql://db/x"),
        (
            "postgresql://db/x?user=u&password=p&sslmode=require",
            "postgresql://db/x?user=u&password=***&sslmode=require",
        ),
        ("https://h/x?X-Amz-Signature=abc&a=1", "https://h/x?X-Amz-Signature=***&a=1"),
        ("hf://owner/name@main and hf://name:config@main", "hf://owner/name@main and hf://main"),
        ("s3://bucket/key@2x.csv", "s3://bucket/key@2x.csv"),
        ("s3://AKIA:secret@bucket/key", "s3://bucket/key"),
        ("write to me@example.com", "write to me@example.com"),
    ],
)
def test_users_and_secrets_are_taken_out_of_addresses_and_names_stay(text: str, told: str) -> None:
    assert without_credentials(text) == told


def test_the_words_of_a_library_s_error_are_not_told_and_our_own_are() -> None:
    assert told_of(InputError("data.train: not there")) == "data.train: not there"
    assert told_of(ValueError("https://bob:pw@mlflow: a text of a user's")) == "ValueError"
    assert told_of(KeyboardInterrupt()) == "KeyboardInterrupt"
