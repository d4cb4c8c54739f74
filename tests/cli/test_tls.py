"""HTTPS beside HTTP: the vendors' SDKs trust the file that they are given, and wrong files are refused with what is wrong."""

import os
import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest

from freehold.app import write_private
from freehold.cli._tls import certificate
from freehold.config import Config, Server
from freehold.core.errors import BadRequest
from freehold.server.certificates import RENEWED_DAYS, VALID_DAYS, is_good, self_signed
from tests.cli._freehold import Freehold

NOW = datetime.now(UTC).replace(microsecond=0)


def models_through(url: str, ca_file: str | None, key: str) -> int:
    trust = ssl.create_default_context(cafile=ca_file)
    trust.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        openai.DefaultHttpxClient(verify=trust, trust_env=False) as http,
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=http) as client,
    ):
        return len(list(client.models.list()))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Freehold, dict[str, Any]]]:
    here = Freehold(tmp_path_factory.mktemp("served") / "data folder", {"OPENAI_API_KEY": "sk-test"})
    with here.serving("--tls", "self-signed", "--tls-port", "0") as told:
        yield here, told


@pytest.mark.slow
def test_an_sdk_speaks_https_with_the_authority_that_it_is_told(
    served: tuple[Freehold, dict[str, Any]],
) -> None:
    _, told = served
    assert told["tls_url"].startswith("https://127.0.0.1:")
    assert models_through(told["tls_url"], told["ca_file"], told["api_key"]) > 0
    port = told["tls_url"].rpartition(":")[2]
    assert models_through(f"https://localhost:{port}", told["ca_file"], told["api_key"]) > 0
    assert models_through(told["url"], told["ca_file"], told["api_key"]) > 0, "HTTP is there as before"


@pytest.mark.slow
def test_who_does_not_trust_the_authority_does_not_connect(served: tuple[Freehold, dict[str, Any]]) -> None:
    _, told = served
    with pytest.raises(openai.APIConnectionError):
        models_through(told["tls_url"], None, told["api_key"])


@pytest.mark.slow
def test_what_is_made_is_for_its_owner_only(served: tuple[Freehold, dict[str, Any]]) -> None:
    here, _ = served
    files = sorted((here.folder / "tls").iterdir())
    assert [file.name for file in files] == ["ca.pem", "cert.pem", "key.pem"]
    assert {stat.S_IMODE(os.stat(file).st_mode) for file in files} == {0o600}


def config(folder: Path, **server: Any) -> Config:
    folder.mkdir(exist_ok=True)
    return Config(data_folder=folder, server=Server(**server))


def test_a_certificate_is_kept_until_it_is_old_or_for_another_name(tmp_path: Path) -> None:
    asked = config(tmp_path / "data", tls="self-signed")
    first = certificate(asked)
    assert first is not None
    chain = first.chain.read_bytes()
    certificate(asked)
    assert first.chain.read_bytes() == chain
    names = ["localhost", "127.0.0.1"]
    made = self_signed(names, now=NOW)
    assert is_good(made.chain, names, now=NOW + timedelta(days=VALID_DAYS - RENEWED_DAYS))
    assert not is_good(made.chain, names, now=NOW + timedelta(days=VALID_DAYS - RENEWED_DAYS + 1))
    assert not is_good(made.chain, [*names, "shop.example"], now=NOW)
    assert not is_good(b"no certificate", names, now=NOW)
    write_private(first.chain, made.chain)
    certificate(config(tmp_path / "data", tls="self-signed", host="10.1.2.3"))
    assert first.chain.read_bytes() not in {chain, made.chain}


def files(folder: Path) -> dict[str, str]:
    made, other = self_signed(["localhost"], now=NOW), self_signed(["localhost"], now=NOW)
    contents = {"cert": made.chain, "key": made.key, "other": other.key, "text": b"not PEM"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: str(folder / name) for name in (*contents, "missing")}


@pytest.mark.slow
def test_files_of_ones_own_are_served_with(tmp_path: Path) -> None:
    given = files(tmp_path)
    here = Freehold(tmp_path / "data folder", {"OPENAI_API_KEY": "sk-test"})
    with here.serving("--tls-cert", given["cert"], "--tls-key", given["key"], "--tls-port", "0") as told:
        assert "ca_file" not in told
        port = told["tls_url"].rpartition(":")[2]
        assert models_through(f"https://localhost:{port}", given["cert"], told["api_key"]) > 0


@pytest.mark.parametrize(
    ("cert", "key", "field", "says"),
    [
        ("missing", "key", "server.tls_cert", "No such file"),
        ("cert", "missing", "server.tls_key", "No such file"),
        ("text", "key", "server.tls_cert", "expected certificates in PEM"),
        ("cert", "text", "server.tls_key", "expected a private key in PEM"),
        ("key", "cert", "server.tls_cert", "expected certificates in PEM"),
        ("cert", "other", "server.tls_key", "is not the key of the certificate in"),
        ("cert", None, "server.tls_key", "tls_cert is given without tls_key"),
        (None, "key", "server.tls_cert", "tls_key is given without tls_cert"),
    ],
)
def test_wrong_files_are_refused(
    tmp_path: Path, cert: str | None, key: str | None, field: str, says: str
) -> None:
    given = files(tmp_path)
    chosen = {"tls_cert": cert and given[cert], "tls_key": key and given[key]}
    with pytest.raises(BadRequest, match=says) as refused:
        certificate(config(tmp_path / "data", **chosen))
    assert refused.value.field == field


def test_a_made_certificate_and_one_of_ones_own_are_not_taken_together(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="not both"):
        certificate(config(tmp_path / "data", tls="self-signed", tls_cert="x"))


def test_the_command_says_what_is_wrong_with_a_file(freehold: Freehold) -> None:
    done = freehold("serve", "--tls-cert", "/nowhere/cert.pem", "--tls-key", "/nowhere/key.pem")
    assert done.code != 0
    assert "server.tls_cert: /nowhere/cert.pem cannot be read: No such file" in done.err.replace("\n", " ")
