"""`freehold experiments show`, against a server."""

from tests.cli._freehold import Freehold

ROUTE = """
kind: route
name: compared
models: [rules/clerk, rules/other]
experiment:
  canary: { model: rules/other }
"""


def test_an_experiment_is_shown_before_its_first_call(served: Freehold) -> None:
    served.ok("apply", "-", "--yes", "--allow-unknown-models", input=ROUTE)
    told = served.ok("experiments", "show", "compared", "--json").json
    assert [(one["arm"], one["calls"], one["percent"]) for one in told["arms"]] == [
        ("baseline", 0, 100),
        ("canary", 0, 0),
    ]
    shown = served.ok("experiments", "show", "compared").out
    assert "baseline (100 %)" in shown
    assert "error_rate" in shown
    assert served("experiments", "show", "nothing").code == 1
