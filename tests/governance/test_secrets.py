"""Secrets: references resolve to values, values appear nowhere else."""

import logging
import os
from pathlib import Path

import pytest

from freehold.core.errors import BadRequest, NotFound, TooLarge
from freehold.governance.secrets import REDACTED, SECRET_BYTES_MAX, Secrets


def test_an_environment_variable_and_a_file_give_their_value_without_the_line_end(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("from-a-file\n")
    path.chmod(0o600)
    secrets = Secrets({"KEY": " from-the-environment \n"})
    assert secrets.resolve("env:KEY") == "from-the-environment"
    assert secrets.resolve(f"file:{path}") == "from-a-file"


@pytest.mark.parametrize("content", [b"", b"  \n"])
def test_an_empty_secret_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(NotFound, match="empty"):
        Secrets({}).resolve(f"file:{path}")
    with pytest.raises(NotFound, match="KEY is not set"):
        Secrets({"KEY": content.decode()}).resolve("env:KEY")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="NO_SUCH"):
        Secrets({}).resolve("env:NO_SUCH")
    with pytest.raises(NotFound, match="absent"):
        Secrets({}).resolve(f"file:{tmp_path}/absent")


def test_a_value_in_a_references_place_is_refused_without_repeating_it() -> None:
    with pytest.raises(BadRequest) as error:
        Secrets({}).resolve("sk-live-0123456789")
    assert "0123456789" not in str(error.value)


def test_files_too_large_or_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"x" * (SECRET_BYTES_MAX + 1))
    with pytest.raises(TooLarge, match="SECRET_BYTES_MAX"):
        Secrets({}).resolve(f"file:{path}")
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadRequest, match="UTF-8"):
        Secrets({}).resolve(f"file:{path}")


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_file_that_others_may_read_is_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_text("value-of-the-key")
    path.chmod(0o644)
    secrets = Secrets({})
    with caplog.at_level(logging.WARNING):
        secrets.resolve(f"file:{path}")
        secrets.resolve(f"file:{path}")
    assert [record.message for record in caplog.records] == ["secret.file_open_to_others"]
    assert "value-of-the-key" not in caplog.text


def test_a_renewed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("first")
    secrets = Secrets({})
    assert secrets.resolve(f"file:{path}") == "first"
    path.write_text("second")
    assert secrets.resolve(f"file:{path}") == "second"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-REDACTED",
        "fh_01h00000000000000000000000_0123456789abcdefghijABCDEFGHIJ0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "value-known-from-resolving",
    ],
)
def test_text_for_logs_is_cleaned_of_known_values_and_of_whatever_looks_like_a_key(secret: str) -> None:
    secrets = Secrets({"KEY": "value-known-from-resolving"})
    secrets.resolve("env:KEY")
    assert (
        secrets.redact(f"the provider said: {secret} is wrong") == f"the provider said: {REDACTED} is wrong"
    )


def test_logins_in_addresses_and_bearer_tokens_are_cleaned() -> None:
    secrets = Secrets({})
    assert secrets.redact("postgresql://ann:hunter2@db:5432/x") == f"postgresql://{REDACTED}@db:5432/x"
    assert secrets.redact("authorization: Bearer abcdefghijklmnop") == f"authorization: Bearer {REDACTED}"


def test_ordinary_text_stays_as_it_is() -> None:
    text = "GET https://example.com:8080/path?x=1 gave 500 for task-1234 and SKU-4482"
    assert Secrets({}).redact(text) == text
