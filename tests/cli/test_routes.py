"""`freehold routes explain` and `freehold models drain`, against a server."""

import pytest

from tests.cli._freehold import Freehold

pytestmark = pytest.mark.slow

ROUTE = "kind: route\nname: smart\nmodels: [rules/clerk, openai/gpt-4o]\n"
REQUEST = '{"model": "smart", "messages": [{"role": "user", "content": "Hi"}]}'


def test_a_route_is_explained_and_its_models_are_drained(served: Freehold) -> None:
    served.ok("apply", "-", "--yes", "--allow-unknown-models", input=ROUTE)
    told = served.ok("routes", "explain", "smart", "--request", "-", "--json", input=REQUEST).json
    first, missing = told["models"]
    assert (first["model"], first["place"], first["why"]) == ("rules/clerk", 1, "in order")
    assert (missing["place"], missing["why"]) == (
        None,
        "provider openai cannot be asked: OPENAI_API_KEY is not set",
    )
    assert "in order" in served.ok("routes", "explain", "smart", "--request", "-", input=REQUEST).out
    served.ok("models", "drain", "rules/clerk", "--reason", "tidying")
    assert "rules/clerk: tidying" in served.ok("get", "drains").out
    told = served.ok("routes", "explain", "smart", "--request", "-", "--json", input=REQUEST).json
    assert told["models"][0]["why"] == "drained: tidying"
    served.ok("models", "undrain", "rules/clerk")
    assert served("models", "undrain", "rules/clerk").code == 1
    options = ("--label", "eu", "--session", "s1", "--user", "zoë", "--json")
    told = served.ok("routes", "explain", "smart", *options).json
    assert (told["affinity"], told["models"][0]["place"]) == ("s1", None)
    assert told["models"][0]["why"].startswith("the request is labelled eu")
