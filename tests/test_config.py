"""Configuration: read once, later wins, and what is unknown is refused by name."""

import re
from pathlib import Path

import pytest

from freehold.config import read_config
from freehold.core.errors import BadRequest


def written(folder: Path, text: str) -> Path:
    (folder / "freehold.toml").write_text(text)
    return folder


def test_defaults_need_nothing(tmp_path: Path) -> None:
    config = read_config(data_folder=tmp_path, environment={})
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8484)
    assert config.database.url is None


def test_later_wins_file_environment_option(tmp_path: Path) -> None:
    folder = written(tmp_path, '[server]\nhost = "127.0.0.2"\nport = 1\n[log]\nlevel = "debug"\n')
    environment = {
        "FREEHOLD_PORT": "2",
        "FREEHOLD_DISCOVER_LOCAL_MODELS": "false",
        "DATABASE_URL": "postgresql://x",
    }
    config = read_config(data_folder=folder, environment=environment)
    assert (config.server.host, config.server.port, config.log.level) == ("127.0.0.2", 2, "debug")
    assert config.models.discover_local is False
    assert config.database.url == "postgresql://x"
    assert (
        read_config(data_folder=folder, environment=environment, options={("server", "port"): 3}).server.port
        == 3
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nprot = 1\n", r"freehold\.toml.*server\.prot: unknown field 'prot'"),
        ("[srever]\n", r"unknown field 'srever' \(did you mean 'server'\?\)"),
        ('[server]\nport = "many"\n', r"server\.port: expected 'int'"),
        ("[server\n", r"freehold\.toml is not TOML"),
        ('data_folder = "/x"\n', r"data_folder cannot be set in the file"),
        ('[objects]\nsecret_access_key = "plain"\n', r"objects\.secret_access_key: expected a reference"),
    ],
)
def test_what_is_wrong_is_told_by_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_config(data_folder=written(tmp_path, text), environment={})
    assert re.search(words, str(refused.value)), str(refused.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"none\.toml cannot be read"):
        read_config(data_folder=tmp_path, file=tmp_path / "none.toml", environment={})


def test_the_environment_is_kept_for_references_and_shown_to_nobody(tmp_path: Path) -> None:
    config = read_config(data_folder=tmp_path, environment={"TOKEN": "canary"})
    assert config.environment["TOKEN"] == "canary"
