"""Log lines: one event, its fields, and no secret; readable by machines and on a terminal."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from freehold.core.errors import BadRequest, Unavailable
from freehold.governance.secrets import REDACTED, Secrets
from freehold.telemetry.logging import FIELD_CHARS_MAX, configure

KEY = "fh_01h00000000000000000000000_0123456789abcdefghijABCDEFGHIJ0123456789"


@pytest.fixture(autouse=True)
def root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(form: str, level: str = "info") -> tuple[logging.Logger, io.StringIO]:
    out = io.StringIO()
    configure(level, form, redact=Secrets({}).redact, stream=out)
    return logging.getLogger("freehold.gateway.models"), out


def test_a_json_line_has_the_event_its_room_and_its_fields() -> None:
    log, out = logged("json")
    log.warning("models.not_reloaded", extra={"tenant": "acme", "count": 3, "odd": {1, 2}.__class__})
    line = json.loads(out.getvalue())
    assert (line["event"], line["level"], line["room"]) == (
        "models.not_reloaded",
        "warning",
        "gateway.models",
    )
    assert (line["tenant"], line["count"]) == ("acme", 3)
    assert line["at"].endswith("+00:00")


def test_a_console_line_quotes_what_has_spaces() -> None:
    log, out = logged("console")
    log.info("call.failed", extra={"why": "two words", "code": "timed_out"})
    assert out.getvalue().endswith('info    call.failed why="two words" code=timed_out\n')


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_errors_detail_is_logged_and_its_secrets_are_not(form: str) -> None:
    log, out = logged(form)
    try:
        raise Unavailable("no answer", detail=f"the proxy said {KEY} at http://ann:hunter2@proxy")
    except Unavailable:
        log.exception("provider.failed", extra={"header": f"Bearer {KEY}"})
    assert "the proxy said" in out.getvalue()
    assert "Traceback" in out.getvalue()
    assert REDACTED in out.getvalue()
    assert KEY not in out.getvalue()
    assert "hunter2" not in out.getvalue()


def test_every_json_line_is_one_line_and_bounded() -> None:
    log, out = logged("json")
    log.info("odd.text", extra={"text": "a\nb" * 10_000})
    assert out.getvalue().count("\n") == 1
    assert len(json.loads(out.getvalue())["text"]) == FIELD_CHARS_MAX


def test_below_the_level_nothing_is_written() -> None:
    log, out = logged("json", "warning")
    log.info("quiet")
    assert not out.getvalue()


def test_auto_is_json_where_there_is_no_terminal() -> None:
    log, out = logged("auto")
    log.info("hello")
    assert json.loads(out.getvalue())["event"] == "hello"


@pytest.mark.parametrize(
    ("level", "form", "names"), [("loud", "json", "log.level"), ("info", "xml", "log.format")]
)
def test_unknown_words_are_refused(level: str, form: str, names: str) -> None:
    with pytest.raises(BadRequest, match=names):
        configure(level, form)
