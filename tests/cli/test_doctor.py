"""The doctor where no server runs: what it finds, what it says to do, and its exit code."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli._freehold import Freehold

AWAY = {"DATABASE_URL": "postgresql://user:hunter2@127.0.0.1:9/none"}
"""Where the database does not matter, none is started: this one is known to be away at once."""


def findings(told: Any) -> dict[str, dict[str, str]]:
    return {one["check"]: one for one in told["findings"]}


@pytest.mark.slow
def test_a_machine_where_nothing_ran_yet_is_well_and_stays_untouched(freehold: Freehold) -> None:
    done = freehold.ok("doctor", "--json")
    found = findings(done.json)
    assert found["PostgreSQL"]["state"] == "ok"
    assert "tried in a temporary folder" in found["PostgreSQL"]["says"]
    assert found["server"]["state"] == "absent"
    assert found["models"]["state"] == "warning"
    assert not freehold.folder.exists()


@pytest.mark.slow
def test_a_data_folder_that_was_used_is_looked_into(freehold: Freehold) -> None:
    with freehold.serving():
        pass
    found = findings(freehold.ok("doctor", "--json").json)
    assert found["schema"]["says"] == "up to date"
    assert found["keys"]["says"] == "1 active of 1"


def test_a_database_that_is_away_must_be_mended(freehold: Freehold) -> None:
    away = Freehold(freehold.folder, AWAY)
    done = away("doctor")
    assert done.code == 1
    assert "✗ PostgreSQL" in done.out
    assert "1 to mend" in done.out
    assert "hunter2" not in done.out + done.err


@pytest.mark.slow
def test_a_server_whose_database_is_away_says_so_and_ends(freehold: Freehold) -> None:
    away = Freehold(freehold.folder, AWAY)
    done = away.process("serve", "--port", "0")
    assert done.code == 1
    assert done.err.startswith("error: connecting to the database")
    assert "hunter2" not in done.err


def test_wrong_settings_are_named_and_nothing_else_is_looked_at(freehold: Freehold) -> None:
    freehold.folder.mkdir()
    (freehold.folder / "freehold.toml").write_text("[runtime]\nsessions_max = 'many'\n")
    done = freehold("doctor", "--json")
    assert done.code == 1
    assert "runtime.sessions_max" in findings(done.json)["configuration"]["says"]


def test_settings_in_two_files_are_joined_and_may_not_contradict(freehold: Freehold) -> None:
    (freehold.folder / "freehold.d").mkdir(parents=True)
    (freehold.folder / "freehold.toml").write_text("databases = ['a']\n[server]\nport = 1\n")
    extra = freehold.folder / "freehold.d" / "more.toml"
    extra.write_text("databases = ['b']\n[tools]\nfunction_folders = ['/nowhere']\n")
    doctor = Freehold(freehold.folder, AWAY)
    done = doctor("doctor", "--json")
    assert findings(done.json)["function folder"]["says"] == "/nowhere is not there"
    assert done.code == 1
    extra.write_text("[server]\nport = 2\n")
    done = doctor("doctor", "--json")
    assert "more.toml: server.port is set in another file already" in json.dumps(done.json)


def test_a_folder_that_cannot_be_made_must_be_mended(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = Freehold(tmp_path / "file" / "data", AWAY)("doctor", "--json")
    assert done.code == 1
    assert findings(done.json)["data folder"]["state"] == "failed"


def test_a_folder_that_others_may_read_wants_attention(freehold: Freehold) -> None:
    freehold.folder.mkdir(mode=0o755)
    freehold.folder.chmod(0o755)
    told = Freehold(freehold.folder, AWAY)("doctor", "--json").json
    assert findings(told)["data folder"]["state"] == "warning"


def test_a_key_in_the_environment_makes_a_provider_usable(freehold: Freehold) -> None:
    done = Freehold(freehold.folder, {**AWAY, "OPENAI_API_KEY": "sk-secret"})("doctor")
    assert "provider openai" in done.out
    assert "sk-secret" not in done.out
