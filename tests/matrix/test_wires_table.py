"""docs/wires.md and docs/answers.md say what the wires do: every published field of every wire, towards every other; none is lost."""

import importlib
import importlib.util
import pkgutil
import sys
from types import ModuleType

import pytest
from msgspec import structs

from freehold import wires
from freehold.server.apis.responses_keeping import DONE_HERE
from tests.matrix import schemas
from tests.matrix._refused import FILE

CHAT = "openai.types.chat:ChatCompletion"
SCRIPTS = FILE.parent.parent.parent / "scripts"


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return _script("wires_table")


@pytest.fixture(scope="module")
def embeddings(table: ModuleType) -> ModuleType:
    """The one that the table took: another would have other classes."""
    return sys.modules[table.embedded.__module__]


@pytest.fixture(scope="module")
def embedding_answers(answers: ModuleType) -> ModuleType:
    return sys.modules[answers.embedded.__module__]


@pytest.fixture(scope="module")
def answers(table: ModuleType) -> ModuleType:
    return _script("answers_table")


def test_the_page_is_what_the_wires_do(table: ModuleType) -> None:
    assert table.PAGE.read_text() == table.page(), "run scripts/wires_table.py"


def test_every_field_that_a_vendor_publishes_is_on_it(table: ModuleType) -> None:
    assert {name: missing for name in table.samples() if (missing := table.undocumented(name))} == {}


def test_what_is_done_at_the_door_is_what_the_door_does(table: ModuleType) -> None:
    said = {name: {one.field for one in found.fields if one.door} for name, found in table.samples().items()}
    assert {name: fields for name, fields in said.items() if fields} == {"openai_responses": {*DONE_HERE}}


def test_a_field_that_makes_no_difference_without_a_reason_is_found(table: ModuleType) -> None:
    sample = table.Sample(field="nobody", sets='{"n": 1}')
    with pytest.raises(table.Lost, match="nobody"):
        table.reason("openai_chat", "anthropic_messages", sample)


def test_every_wire_of_embeddings_is_on_it_with_every_field_that_its_vendor_publishes(
    embeddings: ModuleType, embedding_answers: ModuleType
) -> None:
    found = (one.name for one in pkgutil.iter_modules(wires.__path__))
    made = {
        name for name in found if hasattr(importlib.import_module(f"freehold.wires.{name}"), "EMBEDDINGS")
    }
    for page in (embeddings, embedding_answers):
        assert {name: page.undocumented(name) for name in page.samples()} == {name: [] for name in made}


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        ("openai_embeddings", "usage.prompt_tokens"),
        ("google_embed", "truncated"),
        ("bedrock_nova_embed", "embeddings[].embeddingType"),
    ],
)
def test_a_field_of_an_embeddings_answer_without_a_sample_is_found(
    embedding_answers: ModuleType, monkeypatch: pytest.MonkeyPatch, wire: str, field: str
) -> None:
    told = embedding_answers.samples()
    fields = tuple(one for one in told[wire].fields if one.field != field)
    fewer = {**told, wire: structs.replace(told[wire], fields=fields)}
    monkeypatch.setattr(embedding_answers, "samples", lambda: fewer)
    assert embedding_answers.undocumented(wire) == [field]


def test_a_field_of_an_embeddings_answer_that_makes_no_difference_without_a_reason_is_found(
    embedding_answers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = embedding_answers.samples()["bedrock_titan_embed"]
    fields = tuple(structs.replace(one, why="") for one in told.fields)
    fewer = {**embedding_answers.samples(), "bedrock_titan_embed": structs.replace(told, fields=fields)}
    monkeypatch.setattr(embedding_answers, "samples", lambda: fewer)
    with pytest.raises(embedding_answers.Lost, match="embeddingsByType"):
        embedding_answers.sections()


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        ("openai_embeddings", "dimensions"),
        ("google_embed", "documentOcr"),
        ("google_predict", "instances[].title"),
        ("bedrock_nova_embed", "singleEmbeddingParams.video.embeddingMode"),
    ],
)
def test_a_field_of_embeddings_that_is_not_on_it_is_found(
    embeddings: ModuleType, monkeypatch: pytest.MonkeyPatch, wire: str, field: str
) -> None:
    one = embeddings.samples()[wire]
    name = embeddings.last_name(field)
    kept = tuple(sample for sample in one.fields if embeddings.last_name(sample.field) != name)
    monkeypatch.setattr(embeddings, "samples", lambda: {wire: structs.replace(one, fields=kept)})
    assert embeddings.undocumented(wire) == [field]


def test_a_field_of_embeddings_that_makes_no_difference_without_a_reason_is_found(
    embeddings: ModuleType, table: ModuleType
) -> None:
    sample = table.Sample(field="nobody", sets='{"input": "hi"}')
    assert embeddings.fate("openai_embeddings", "google_embed", sample) == "left out"
    with pytest.raises(table.Lost, match="nobody"):
        embeddings.reason("openai_embeddings", "google_embed", sample)


@pytest.mark.slow
def test_the_page_of_answers_is_what_the_wires_do(answers: ModuleType) -> None:
    assert answers.PAGE.read_text() == answers.page(), "run scripts/answers_table.py"


def test_every_wire_of_the_one_page_is_on_the_other(table: ModuleType, answers: ModuleType) -> None:
    assert answers.names() == sorted(table.TITLES)


@pytest.mark.parametrize("wire", sorted(schemas.DIALECTS))
def test_answers_are_of_the_types_that_the_matrix_judges_by(answers: ModuleType, wire: str) -> None:
    module, _, kind = answers.said(wire).answer_type.partition(":")
    assert getattr(importlib.import_module(module), kind) is schemas.DIALECTS[wire].answer


def test_a_field_of_an_answer_that_is_lost_without_a_reason_is_found(answers: ModuleType) -> None:
    (row,) = [row for row in answers.rows("openai_chat", answers.published(CHAT)) if row.path == "created"]
    base = {"id": "c", "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Hi"}}]}
    row = structs.replace(row, group=None)
    with pytest.raises(answers.Lost, match="created"):
        answers.cell_of("openai_chat", "anthropic_messages", row, base, [], streamed=False)
