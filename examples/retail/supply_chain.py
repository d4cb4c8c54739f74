"""The supply-chain service: purchase orders, suppliers and shipments over HTTP, with an OpenAPI document.

    python supply_chain.py --data ./data --port 8090

Listens on loopback only and prints its URL when it is ready. It keeps what `expeditePurchaseOrder` did in memory: a restart
begins with the orders as they were made. Types and document are in `supply_chain_api.py`.
"""

import argparse
import base64
import binascii
import datetime as dt
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import uvicorn
from msgspec import Struct
from retail_world import AS_OF
from retail_world.records import PurchaseOrder, SupplyChain, Tracking
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from supply_chain_api import (
    IDEMPOTENCY_KEY_LENGTH_MAX,
    OPERATIONS,
    Expedite,
    ExpediteRequest,
    NoQuery,
    Notices,
    Operation,
    OrderPath,
    OrdersPage,
    OrdersQuery,
    Problem,
    ShipmentPath,
    ShipmentsPage,
    ShipmentsQuery,
    SupplierPath,
    openapi_document,
)

HOST: Final = "127.0.0.1"
SUPPLY_CHAIN_FILE: Final = "supply_chain.json"
BODY_BYTES_MAX: Final = 10_000
EXPEDITES_MAX: Final = 10_000
FORWARDER_DAYS: Final = 2
"""From the request to the flight."""
FLIGHT_DAYS: Final = 4
AIR_FEE_SHARE: Final = Decimal("0.35")
"""Of what the goods cost."""

Item = TypeVar("Item", PurchaseOrder, Tracking)
Fields = TypeVar("Fields", bound=Struct)


class Refused(Exception):
    """The request gets this status, and `detail` says what to do about it."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Service:
    """Answers from one data set. Every method is one operation; none waits, so that each is atomic on the event loop."""

    def __init__(self, data: SupplyChain) -> None:
        self._orders = tuple(
            sorted(data.orders, key=lambda order: (order.ordered_on, order.po_id), reverse=True)
        )
        self._shipments = tuple(
            sorted(
                data.shipments, key=lambda item: (item.events[0].at.date(), item.manifest_id), reverse=True
            )
        )
        self._order_by_id = {order.po_id: order for order in self._orders}
        self._shipment_by_id = {shipment.manifest_id: shipment for shipment in self._shipments}
        self._suppliers = {supplier.supplier_id: supplier for supplier in data.suppliers}
        self._notices = data.notices
        self._expedited: dict[str, tuple[str, ExpediteRequest, Expedite]] = {}

    def list_orders(self, query: OrdersQuery) -> OrdersPage:
        found = [
            order
            for order in self._orders
            if (query.dc in {None, order.dc})
            and (query.status in {None, order.status})
            and (query.open is None or query.open == (order.status != "received"))
            and (query.sku is None or any(line.sku == query.sku for line in order.lines))
        ]
        return OrdersPage(*_page(found, query.limit, query.cursor, lambda order: order.po_id))

    def get_order(self, po_id: str) -> PurchaseOrder:
        return _known(self._order_by_id, po_id, "purchase order")

    def get_supplier(self, supplier_id: str) -> Struct:
        return _known(self._suppliers, supplier_id, "supplier")

    def list_notices(self, supplier_id: str) -> Notices:
        self.get_supplier(supplier_id)
        mine = [notice for notice in self._notices if notice.supplier_id == supplier_id]
        return Notices(tuple(sorted(mine, key=lambda notice: notice.issued_on, reverse=True)))

    def list_shipments(self, query: ShipmentsQuery) -> ShipmentsPage:
        found = [
            shipment
            for shipment in self._shipments
            if (query.dc in {None, shipment.dc})
            and (query.status in {None, shipment.status})
            and (query.open is None or query.open == (shipment.status != "delivered"))
        ]
        return ShipmentsPage(*_page(found, query.limit, query.cursor, lambda shipment: shipment.manifest_id))

    def track(self, manifest_id: str) -> Tracking:
        return _known(self._shipment_by_id, manifest_id, "shipment")

    def expedite(self, po_id: str, key: str, request: ExpediteRequest) -> Expedite:
        before = self._expedited.get(key)
        if before is not None:
            if before[:2] != (po_id, request):
                raise Refused(422, f"Idempotency-Key {key!r} was used for another request; choose a new one")
            return before[2]
        order = self.get_order(po_id)
        earlier = next((done for _, _, done in self._expedited.values() if done.po_id == po_id), None)
        if earlier is not None:
            raise Refused(
                409, f"{po_id} was expedited as {earlier.expedite_id}, expected on {earlier.expected_on}"
            )
        if len(self._expedited) >= EXPEDITES_MAX:
            raise Refused(
                409, f"no more than {EXPEDITES_MAX} orders are expedited until the service restarts"
            )
        done = self._by_air(order)
        self._expedited[key] = (po_id, request, done)
        return done

    def _by_air(self, order: PurchaseOrder) -> Expedite:
        waiting = sum(
            delivery.units for delivery in order.deliveries if delivery.status in {"booked", "not_booked"}
        )
        if not waiting:
            raise Refused(
                409, f"{order.po_id} is {order.status}: all of it has left, nothing can be expedited"
            )
        left = {
            line.sku: (line.ordered if line.confirmed is None else line.confirmed) - line.shipped
            for line in order.lines
        }
        cost = sum((left[line.sku] * Decimal(line.unit_cost) for line in order.lines), Decimal(0))
        departs_on = AS_OF + dt.timedelta(days=FORWARDER_DAYS)
        return Expedite(
            expedite_id=f"EXP-{len(self._expedited) + 1:04d}",
            po_id=order.po_id,
            units=waiting,
            departs_on=departs_on,
            expected_on=departs_on + dt.timedelta(days=FLIGHT_DAYS),
            fee_usd=f"{cost * AIR_FEE_SHARE:.2f}",
        )


def make_app(service: Service, url: str) -> Starlette:
    document = msgspec.json.encode(openapi_document(url))

    async def openapi(_: Request) -> Response:
        return Response(document, media_type="application/json")

    async def list_orders(request: Request) -> Response:
        return _answer(service.list_orders(_query(request, OrdersQuery)))

    async def get_order(request: Request) -> Response:
        return _answer(service.get_order(_path(request, OrderPath).po_id))

    async def expedite(request: Request) -> Response:
        po_id = _path(request, OrderPath).po_id
        key = request.headers.get("idempotency-key", "")
        if not 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX:
            raise Refused(
                400,
                f"header Idempotency-Key: expected 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} characters, got {len(key)}",
            )
        return _answer(service.expedite(po_id, key, await _body(request)), status=201)

    async def get_supplier(request: Request) -> Response:
        return _answer(service.get_supplier(_path(request, SupplierPath).supplier_id))

    async def list_notices(request: Request) -> Response:
        return _answer(service.list_notices(_path(request, SupplierPath).supplier_id))

    async def list_shipments(request: Request) -> Response:
        return _answer(service.list_shipments(_query(request, ShipmentsQuery)))

    async def track(request: Request) -> Response:
        return _answer(service.track(_path(request, ShipmentPath).manifest_id))

    handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "listPurchaseOrders": list_orders,
        "getPurchaseOrder": get_order,
        "expeditePurchaseOrder": expedite,
        "getSupplier": get_supplier,
        "listSupplierNotices": list_notices,
        "listShipments": list_shipments,
        "trackShipment": track,
    }
    routes = [Route("/openapi.json", openapi)]
    routes += [_route(operation, handlers[operation.operation_id]) for operation in OPERATIONS]
    return Starlette(
        routes=routes, exception_handlers={Refused: _refused, HTTPException: _refused_by_framework}
    )


def _route(operation: Operation, handler: Callable[[Request], Awaitable[Response]]) -> Route:
    async def checked(request: Request) -> Response:
        if operation.query_type is NoQuery:
            _query(request, NoQuery)
        return await handler(request)

    return Route(operation.path, checked, methods=[operation.method.upper()])


def _answer(value: Struct, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise error
    return _problem(error.status, error.detail)


async def _refused_by_framework(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _problem(
        error.status_code, f"{request.method} {request.url.path}: {error.detail}; see /openapi.json"
    )


def _problem(status: int, detail: str) -> Response:
    title = {
        400: "Bad request",
        404: "Not found",
        405: "Method not allowed",
        409: "Conflict",
        413: "Too large",
    }
    problem = Problem(title.get(status, "Refused"), status, detail)
    return Response(msgspec.json.encode(problem), status, media_type="application/problem+json")


def _query(request: Request, fields: type[Fields]) -> Fields:
    return _convert(dict(request.query_params), fields, "query")


def _path(request: Request, fields: type[Fields]) -> Fields:
    return _convert(dict(request.path_params), fields, "path")


def _convert(values: dict[str, Any], fields: type[Fields], place: str) -> Fields:
    try:
        return msgspec.convert(values, fields, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(fields.__struct_fields__) or "none"
        raise Refused(400, f"{place} parameters: {error} (known: {known})") from error


async def _body(request: Request) -> ExpediteRequest:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise Refused(413, f"the body is longer than {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(body, type=ExpediteRequest)
    except msgspec.DecodeError as error:
        raise Refused(400, f"body: {error}") from error


def _page(
    found: Sequence[Item], limit: int, cursor: str | None, id_of: Callable[[Item], str]
) -> tuple[tuple[Item, ...], str | None]:
    start = 0
    if cursor is not None:
        ids = [id_of(item) for item in found]
        last = _decoded(cursor)
        if last not in ids:
            raise Refused(400, "cursor: not one that a page with these filters gave; start again without it")
        start = ids.index(last) + 1
    items = tuple(found[start : start + limit])
    more = start + limit < len(found)
    return items, base64.urlsafe_b64encode(id_of(items[-1]).encode()).decode() if more else None


def _decoded(cursor: str) -> str | None:
    try:
        return base64.urlsafe_b64decode(cursor).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


Found = TypeVar("Found")


def _known(things: dict[str, Found], wanted: str, noun: str) -> Found:
    found = things.get(wanted)
    if found is None:
        raise Refused(404, f"there is no {noun} {wanted!r}")
    return found


def load(folder: Path | None) -> SupplyChain:
    """From the folder that `seed.py` wrote, or made anew: equal data, two seconds later."""
    if folder is not None:
        return msgspec.json.decode((folder / SUPPLY_CHAIN_FILE).read_bytes(), type=SupplyChain)
    # numpy and a whole simulation, which a service over a folder does without.
    from retail_world.writers import files  # noqa: PLC0415
    from seed import make_dataset  # noqa: PLC0415

    content = next(content for name, content in files(make_dataset()) if name == SUPPLY_CHAIN_FILE)
    return msgspec.json.decode(content, type=SupplyChain)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Serve the demo retailer's purchase orders, suppliers and shipments."
    )
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 (the default): any free one")
    parser.add_argument(
        "--data", type=Path, help="folder that seed.py wrote; without it the same data is made anew"
    )
    options = parser.parse_args()
    try:
        service = Service(load(options.data))
        listener = socket.create_server((HOST, options.port))
    except (OSError, OverflowError, msgspec.MsgspecError) as error:
        print(f"supply_chain.py: {error}; data come from: seed.py --folder FOLDER", file=sys.stderr)
        return 1
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(make_app(service, url), log_level="warning", lifespan="off"))
    # The socket listens already: whoever connects from here on is answered as soon as the loop runs.
    print(f"supply chain service: {url}", flush=True)
    server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
