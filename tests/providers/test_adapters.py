"""Adapters are found by their file's name; a row of the catalog names one of them."""

import re
from functools import partial

from msgspec import structs

from freehold import plugins, providers
from freehold.catalog import catalog
from freehold.providers._http import HttpPool


def rows() -> list[catalog.ProviderRow]:
    """With something in the places of their addresses that differ."""
    filled = partial(re.sub, r"\{[^}]*\}", "mine")
    return [structs.replace(row, base_url=filled(row.base_url)) for row in catalog.providers().values()]


def test_every_row_has_an_adapter_and_opens_without_a_network() -> None:
    adapters = plugins.found(providers, "create")
    assert {"openai", "anthropic", "recorded"} <= adapters.keys()
    assert "rules" not in adapters, "it is made from declared rules"
    for row in rows():
        provider = adapters[row.type](row, "sk-x", headers={"x-team": "a"}, pool=HttpPool())
        assert provider.name == row.name
        assert provider.wire in {"openai_chat", "anthropic_messages", "bedrock_converse", "google_generate"}


def test_no_adapter_shows_its_credential() -> None:
    adapters = plugins.found(providers, "create")
    for row in rows():
        provider = adapters[row.type](row, "sk-very-secret", headers={}, pool=HttpPool())
        assert "sk-very-secret" not in repr(vars(provider))
