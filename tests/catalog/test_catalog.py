"""The table of providers: every row is well formed, and a wrong one is refused with what is wrong."""

from urllib.parse import urlsplit

import pytest

from freehold.catalog import catalog, prices
from freehold.core.errors import BadRequest

ROW = b'[[provider]]\nname = "x"\ntype = "openai"\nbase_url = "http://x"\n'


def test_every_row_has_an_address_of_its_own() -> None:
    rows = catalog.providers()
    assert {"openai", "anthropic", "openrouter", "ollama", "vllm", "llamacpp", "lmstudio"} <= rows.keys()
    for row in rows.values():
        parts = urlsplit(row.base_url)
        assert parts.scheme == ("http" if row.local else "https"), row.name
        assert parts.hostname, row.name
        assert not row.base_url.endswith("/"), row.name
        assert row.local != bool(row.api_key), row.name
    assert len({row.base_url for row in rows.values()}) == len(rows)


def test_local_rows_are_on_this_machine_only() -> None:
    for row in catalog.providers().values():
        assert (urlsplit(row.base_url).hostname == "127.0.0.1") == row.local, row.name


def test_default_models_and_price_lists_exist() -> None:
    book = prices.load()
    for row in catalog.providers().values():
        if row.prices is None:
            continue
        assert book.models(row.prices), row.name
        if row.default_model and row.name not in {"openrouter"}:
            assert book.find(row.prices, row.default_model) is not None, row.name


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        (ROW + b'colour = "red"\n', "colour"),
        (ROW + b'local = "yes"\n', "local"),
        (ROW + ROW, "twice"),
        (ROW.replace(b'"x"\ntype', b'"X Y"\ntype'), "name"),
        (b"[[provider]\n", "provider"),
    ],
)
def test_a_wrong_row_is_refused_and_says_why(toml: bytes, named: str) -> None:
    with pytest.raises(BadRequest) as refused:
        catalog.decode(toml)
    assert named in str(refused.value)
