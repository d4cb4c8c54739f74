"""The supply-chain service, started as its users start it: it does what its OpenAPI document says."""

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from retail_world.writers import SUPPLY_CHAIN_FILE, Dataset, files

from tests._waiting import PATIENCE_S

pytestmark = pytest.mark.slow

SERVICE = Path(__file__).parents[2] / "examples" / "retail" / "supply_chain.py"


class Client:
    """`started_s`: what its start took of the processor."""

    def __init__(self, url: str, started_s: float) -> None:
        self.url, self.started_s = url, started_s
        self.document = self.get("/openapi.json")[1]

    def get(self, path: str) -> tuple[int, Any]:
        return self.send("GET", path)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with urlopen(Request(self.url + path, body, names, method=method), timeout=PATIENCE_S) as answer:
                return answer.status, json.loads(answer.read())
        except HTTPError as error:
            with error:
                kind, code, value = error.headers["content-type"], error.code, json.loads(error.read())
        assert kind == "application/problem+json"
        return code, value

    def operation(self, name: str) -> dict[str, Any]:
        return next(
            operation
            for methods in self.document["paths"].values()
            for operation in methods.values()
            if operation["operationId"] == name
        )

    def answers_as_described(self, name: str, status: int, value: Any) -> None:
        content = self.operation(name)["responses"][str(status)]["content"]
        [described] = content.values()
        fits(value, described["schema"], self.document)


def fits(value: Any, schema: dict[str, Any], document: dict[str, Any], path: str = "$") -> None:
    """The part of JSON Schema that the document uses."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:
        [chosen] = [one for one in schema["anyOf"] if (one.get("type") == "null") == (value is None)]
        return fits(value, chosen, document, path)
    types = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "null": type(None),
    }
    if "type" in schema:
        assert isinstance(value, types[schema["type"]]), (path, value, schema)
    assert value in schema.get("enum", [value]), path
    if "pattern" in schema:
        assert re.search(schema["pattern"], value), path
    if schema.get("type") == "object":
        assert set(schema.get("required", ())) <= set(value) <= set(schema["properties"]), path
        for name, item in value.items():
            fits(item, schema["properties"][name], document, f"{path}.{name}")
    if schema.get("type") == "array":
        for number, item in enumerate(value):
            fits(item, schema["items"], document, f"{path}[{number}]")
    return None


@pytest.fixture(scope="module")
def service(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("data")
    content = next(content for name, content in files(dataset) if name == SUPPLY_CHAIN_FILE)
    (folder / SUPPLY_CHAIN_FILE).write_bytes(content)
    process = subprocess.Popen(
        [sys.executable, str(SERVICE), "--data", str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], PATIENCE_S)[0], (
            "the service did not say that it is ready"
        )
        line = process.stdout.readline()
        yield Client(line.split()[-1], cpu_s(process.pid))
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        if process.stdout:
            process.stdout.close()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_it_is_ready_within_seconds_and_on_loopback_only(service: Client) -> None:
    assert service.url.startswith("http://127.0.0.1:")
    assert service.started_s < 5
    assert service.document["openapi"] == "3.1.0"
    assert service.document["servers"] == [{"url": service.url}]


def test_every_operation_is_described(service: Client) -> None:
    names = []
    for methods in service.document["paths"].values():
        for operation in methods.values():
            names.append(operation["operationId"])
            assert operation["summary"]
            assert len(operation["description"]) > 30
            assert all(parameter["description"] for parameter in operation["parameters"])
    assert sorted(names) == sorted(set(names))
    assert len(names) == 7


def test_what_it_answers_is_what_the_document_says(service: Client) -> None:
    status, page = service.get("/purchase-orders?dc=SHA&sku=SKU-4482")
    service.answers_as_described("listPurchaseOrders", status, page)
    order = page["items"][0]
    for name, path in (
        ("getPurchaseOrder", f"/purchase-orders/{order['po_id']}"),
        ("getSupplier", f"/suppliers/{order['supplier_id']}"),
        ("listSupplierNotices", f"/suppliers/{order['supplier_id']}/notices"),
        ("trackShipment", f"/shipments/{order['deliveries'][0]['manifest_id']}"),
        ("listShipments", "/shipments?dc=RTM&open=true&limit=100"),
    ):
        status, value = service.get(path)
        assert status == 200, value
        service.answers_as_described(name, status, value)


@pytest.mark.parametrize(
    ("name", "path", "status", "says"),
    [
        ("listPurchaseOrders", "/purchase-orders?sku=4482", 400, "sku"),
        ("listPurchaseOrders", "/purchase-orders?limit=0", 400, "limit"),
        ("listPurchaseOrders", "/purchase-orders?limit=101", 400, "limit"),
        ("listPurchaseOrders", "/purchase-orders?status=gone", 400, "status"),
        ("listPurchaseOrders", "/purchase-orders?warehouse=SHA", 400, "known: sku, dc"),
        ("listPurchaseOrders", "/purchase-orders?cursor=%FF", 400, "cursor"),
        ("getPurchaseOrder", "/purchase-orders/PO-1", 400, "po_id"),
        ("getPurchaseOrder", "/purchase-orders/PO-2026-99999", 404, "PO-2026-99999"),
        ("getSupplier", "/suppliers/SUP-099", 404, "SUP-099"),
        ("getSupplier", "/suppliers/SUP-001?verbose=1", 400, "verbose"),
        ("listSupplierNotices", "/suppliers/SUP-099/notices", 404, "SUP-099"),
        ("trackShipment", "/shipments/MAN-SHA-2610-9999", 404, "MAN-SHA-2610-9999"),
    ],
)
def test_bad_input_is_named(service: Client, name: str, path: str, status: int, says: str) -> None:
    got, problem = service.get(path)
    assert got == problem["status"] == status
    assert says in problem["detail"]
    service.answers_as_described(name, status, problem)


def test_what_is_not_there_is_a_problem_document_too(service: Client) -> None:
    assert service.get("/nothing")[0] == 404
    assert service.send("DELETE", "/shipments")[0] == 405


def test_pages_give_everything_once(service: Client) -> None:
    seen, cursor = [], ""
    for _ in range(1_000):
        page = service.get(f"/purchase-orders?dc=RTM&limit=37{cursor}")[1]
        seen += [order["po_id"] for order in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) > 100
    assert service.get("/purchase-orders?dc=RTM&limit=100")[1]["items"][-1]["po_id"] == seen[99]


def open_order(service: Client, number: int) -> str:
    page = service.get("/purchase-orders?status=confirmed&limit=10")[1]
    return str(page["items"][number]["po_id"])


def expedite(service: Client, po_id: str, key: str, reason: str = "shelf is empty") -> tuple[int, Any]:
    body = json.dumps({"reason": reason}).encode()
    return service.send("POST", f"/purchase-orders/{po_id}/expedite", body, Idempotency_Key=key)


def test_the_same_key_expedites_once(service: Client) -> None:
    po_id = open_order(service, 0)
    status, first = expedite(service, po_id, "once")
    assert status == 201
    service.answers_as_described("expeditePurchaseOrder", status, first)
    assert expedite(service, po_id, "once") == (201, first)
    assert expedite(service, po_id, "twice")[0] == 409
    assert expedite(service, po_id, "once", "another reason")[0] == 422
    assert expedite(service, open_order(service, 1), "once")[0] == 422


def test_what_has_left_cannot_be_expedited(service: Client) -> None:
    gone = service.get("/purchase-orders?status=received&limit=1")[1]["items"][0]["po_id"]
    status, problem = expedite(service, gone, "too late")
    assert status == 409
    assert "received" in problem["detail"]


def test_an_expedite_without_key_or_reason_is_refused(service: Client) -> None:
    path = f"/purchase-orders/{open_order(service, 2)}/expedite"
    assert "Idempotency-Key" in service.send("POST", path, b'{"reason": "shelf is empty"}')[1]["detail"]
    for body in (b"", b"[]", b'{"reason": ""}', b'{"reason": "abc", "more": 1}'):
        status, problem = service.send("POST", path, body, Idempotency_Key="k")
        assert status == 400, body
        assert problem["detail"].startswith("body: ")
    assert service.send("POST", path, b" " * 20_000, Idempotency_Key="k")[0] == 413


def test_it_says_what_to_do_without_data(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SERVICE), "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert "seed.py --folder" in done.stderr
