"""How many examples hypothesis tries: `fast` by default, `full` in a whole run, `nightly` in scripts/fuzz.

Chosen by `FREEHOLD_TEST_PROFILE`; only `nightly` draws new examples each time. A test says `max_examples` itself only where one example costs more than all of another test's.
"""

import os
from typing import Final

from hypothesis import HealthCheck, settings

EXAMPLES: Final = {"fast": 3, "full": 60, "nightly": 2_000}
CHOSEN: Final = os.environ.get("FREEHOLD_TEST_PROFILE", "fast")
SUPPRESSED: Final = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture)
"""Values of whole conversations are large, and the machine is shared."""

for name, count in EXAMPLES.items():
    settings.register_profile(
        name,
        max_examples=count,
        deadline=None,
        suppress_health_check=SUPPRESSED,
        print_blob=True,
        derandomize=name != "nightly",
    )
settings.load_profile(CHOSEN)
