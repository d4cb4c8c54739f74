"""What docs/experiments.md declares and sends is taken as it stands."""

import msgspec

from freehold.core.routes import Route, check
from freehold.resources.template import read_template
from freehold.server.apis.experiments import FeedbackBody
from tests.docs.test_documents import ROOT, blocks

PAGE = ROOT / "docs" / "experiments.md"


def test_documented_experiments_are_taken() -> None:
    (example,) = blocks(PAGE, "yaml")
    routes = [one.resource for one in read_template(example, source="experiments.md")]
    assert [route.name for route in routes] == ["smart", "next"]
    for route in routes:
        assert isinstance(route, Route)
        check(route)


def test_documented_feedback_is_taken() -> None:
    (example,) = blocks(PAGE, "json")
    assert msgspec.json.decode(example, type=FeedbackBody).name == "helpful"
