"""`freehold webhooks`, against a server that lets nobody into its private network."""

import pytest

from tests.cli._freehold import Freehold

pytestmark = pytest.mark.slow

URL = "https://127.0.0.1:9/hook"


def test_a_webhook_is_added_tested_rotated_and_removed(served: Freehold) -> None:
    assert "No webhooks" in served.ok("webhooks", "list").out
    secret = served.ok("webhooks", "add", "shop", URL, "--event", "session.*").out.strip()
    assert secret.startswith("whsec_")
    [listed] = served.ok("webhooks", "list", "--json").json
    assert (listed["id"], listed["status"], listed["url"]) == ("shop", "ok", URL)
    tested = served("webhooks", "test", "shop")
    assert tested.code == 1
    assert "private" in tested.err
    [delivery] = served.ok("webhooks", "deliveries", "shop", "--json").json
    assert (delivery["event_type"], delivery["status"]) == ("webhook.test", "pending")
    assert "webhook.test" in served.ok("webhooks", "deliveries", "shop").out
    again = served("webhooks", "redeliver", "shop", delivery["id"], "--json")
    assert (again.code, again.json["id"]) == (1, delivery["id"])
    other = served.ok("webhooks", "rotate", "shop", "--overlap-hours", "1", "--json").json
    assert other["secret"] != secret
    assert other["previous_secret_until"]
    assert "shop: ok" in served.ok("webhooks", "enable", "shop").out
    assert "session.*" in served.ok("get", "webhook").out
    assert served("webhooks", "add", "wrong", "http://x.example.com", "--event", "session.*").code == 1
    assert served("webhooks", "add", "wrong", URL, "--event", "session.idle").code == 1
    served.ok("webhooks", "remove", "shop")
    assert served.ok("webhooks", "list", "--json").json == []
