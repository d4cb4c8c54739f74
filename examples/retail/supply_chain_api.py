"""What the supply-chain service offers, as an OpenAPI document made from the same types that check its input.

No behaviour here: that is `supply_chain.py`. Source: https://spec.openapis.org/oas/v3.1.1.html; errors are problem documents
(https://www.rfc-editor.org/rfc/rfc9457).
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct
from retail_world import AS_OF, DATASET_VERSION
from retail_world.records import (
    CenterCode,
    ManifestId,
    OrderId,
    OrderStatus,
    PurchaseOrder,
    ShipmentStatus,
    Sku,
    SupplierId,
    SupplierNotice,
    SupplierRecord,
    Tracking,
)

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100
IDEMPOTENCY_KEY_LENGTH_MAX: Final = 200

_Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="How many items at most.")]
_Cursor = Annotated[str | None, Meta(description="`next_cursor` of the page before, with the same filters.")]
_Open = Annotated[bool | None, Meta(description="true: only what has not arrived yet; false: only what has.")]


class OrdersQuery(Struct, frozen=True, forbid_unknown_fields=True):
    sku: Annotated[Sku | None, Meta(description="Only orders with a line for this product.")] = None
    dc: Annotated[CenterCode | None, Meta(description="Only orders for this distribution center.")] = None
    status: Annotated[OrderStatus | None, Meta(description="Only orders in this status.")] = None
    open: _Open = None
    limit: _Limit = LIMIT_DEFAULT
    cursor: _Cursor = None


class ShipmentsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    dc: Annotated[CenterCode | None, Meta(description="Only shipments to this distribution center.")] = None
    status: Annotated[ShipmentStatus | None, Meta(description="Only shipments in this status.")] = None
    open: _Open = None
    limit: _Limit = LIMIT_DEFAULT
    cursor: _Cursor = None


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class OrderPath(Struct, frozen=True):
    po_id: Annotated[OrderId, Meta(description="Purchase order.")]


class SupplierPath(Struct, frozen=True):
    supplier_id: Annotated[SupplierId, Meta(description="Supplier.")]


class ShipmentPath(Struct, frozen=True):
    manifest_id: Annotated[ManifestId, Meta(description="Shipment, by the number of its manifest.")]


class NoPath(Struct, frozen=True):
    pass


class ExpediteRequest(Struct, frozen=True, forbid_unknown_fields=True):
    reason: Annotated[
        str, Meta(min_length=3, max_length=500, description="Why it cannot wait; goes to the supplier.")
    ]


class Expedite(Struct, frozen=True):
    """What has not left yet goes by air instead."""

    expedite_id: str
    po_id: OrderId
    units: int
    departs_on: dt.date
    expected_on: dt.date
    fee_usd: Annotated[str, Meta(description="Added to the supplier's invoice.", examples=["2100.00"])]


class OrdersPage(Struct, frozen=True):
    items: Annotated[tuple[PurchaseOrder, ...], Meta(description="Newest first.")]
    next_cursor: Annotated[str | None, Meta(description="null: this is the last page.")]


class ShipmentsPage(Struct, frozen=True):
    items: Annotated[tuple[Tracking, ...], Meta(description="Last departed or booked first.")]
    next_cursor: Annotated[str | None, Meta(description="null: this is the last page.")]


class Notices(Struct, frozen=True):
    items: Annotated[tuple[SupplierNotice, ...], Meta(description="Newest first.")]


class Problem(Struct, frozen=True):
    title: str
    status: int
    detail: str


class Operation(NamedTuple):
    operation_id: str
    method: str
    path: str
    summary: str
    description: str
    path_type: type[Struct]
    query_type: type[Struct]
    answer: type[Struct]
    body: type[Struct] | None = None
    errors: tuple[int, ...] = (400,)


OPERATIONS: Final = (
    Operation(
        "listPurchaseOrders",
        "get",
        "/purchase-orders",
        "List purchase orders",
        "Orders of the last half year and all open ones, with ordered, confirmed, shipped and received units a line.",
        NoPath,
        OrdersQuery,
        OrdersPage,
    ),
    Operation(
        "getPurchaseOrder",
        "get",
        "/purchase-orders/{po_id}",
        "Get a purchase order",
        "One order with its lines, its deliveries (and the manifest of each) and its history.",
        OrderPath,
        NoQuery,
        PurchaseOrder,
        errors=(400, 404),
    ),
    Operation(
        "expeditePurchaseOrder",
        "post",
        "/purchase-orders/{po_id}/expedite",
        "Expedite a purchase order",
        "Has everything of the order that has not left yet sent by air, for a fee. Cannot be taken back. The same "
        "`Idempotency-Key` gives the same answer and no second fee.",
        OrderPath,
        NoQuery,
        Expedite,
        body=ExpediteRequest,
        errors=(400, 404, 409, 422),
    ),
    Operation(
        "getSupplier",
        "get",
        "/suppliers/{supplier_id}",
        "Get a supplier",
        "Who it is, its agreed lead time, and how punctual and complete it delivered.",
        SupplierPath,
        NoQuery,
        SupplierRecord,
        errors=(400, 404),
    ),
    Operation(
        "listSupplierNotices",
        "get",
        "/suppliers/{supplier_id}/notices",
        "List a supplier's notices",
        "What the supplier wrote to its customers: capacity, delays, quality, holidays, prices.",
        SupplierPath,
        NoQuery,
        Notices,
        errors=(400, 404),
    ),
    Operation(
        "listShipments",
        "get",
        "/shipments",
        "List shipments",
        "Shipments with the carrier's tracking events. What is on them is in their manifests.",
        NoPath,
        ShipmentsQuery,
        ShipmentsPage,
    ),
    Operation(
        "trackShipment",
        "get",
        "/shipments/{manifest_id}",
        "Track a shipment",
        "Where a shipment is, by its carrier's events, and when it is expected.",
        ShipmentPath,
        NoQuery,
        Tracking,
        errors=(400, 404),
    ),
)

_MEANINGS: Final = {
    400: "A parameter or the body is not as described.",
    404: "There is no such thing.",
    409: "Nothing of the order is left to expedite.",
    422: "The Idempotency-Key was used before with another request.",
}


def openapi_document(server_url: str) -> dict[str, Any]:
    answers = [operation.answer for operation in OPERATIONS]
    types: list[type[Struct]] = [*answers, ExpediteRequest, Problem]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    refs = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Supply chain",
            "version": DATASET_VERSION,
            "description": f"Purchase orders, suppliers and shipments of the demo retailer, as of {AS_OF}.",
        },
        "servers": [{"url": server_url}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _described(operation: Operation, refs: Mapping[type[Struct], Any]) -> dict[str, Any]:
    parameters = [
        *_parameters(operation.path_type, "path"),
        *_parameters(operation.query_type, "query"),
        *(_IDEMPOTENCY_KEY if operation.body else ()),
    ]
    described: dict[str, Any] = {
        "operationId": operation.operation_id,
        "summary": operation.summary,
        "description": operation.description,
        "parameters": parameters,
        "responses": {
            "201" if operation.body else "200": {
                "description": "What was asked for.",
                "content": {"application/json": {"schema": refs[operation.answer]}},
            },
            **{
                str(status): {
                    "description": _MEANINGS[status],
                    "content": {"application/problem+json": {"schema": refs[Problem]}},
                }
                for status in operation.errors
            },
        },
    }
    if operation.body:
        content = {"application/json": {"schema": refs[operation.body]}}
        described["requestBody"] = {"required": True, "content": content}
    return described


_IDEMPOTENCY_KEY: Final = (
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": True,
        "description": "Chosen by the caller; a repeated request with the same key has no further effect.",
        "schema": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_LENGTH_MAX},
    },
)


def _parameters(fields: type[Struct], place: str) -> Sequence[dict[str, Any]]:
    schema = msgspec.json.schema(fields)["$defs"][fields.__name__]
    return [_parameter(name, dict(of), place) for name, of in schema["properties"].items()]


def _parameter(name: str, schema: dict[str, Any], place: str) -> dict[str, Any]:
    """A parameter that may be left out says so by `required`, and not by allowing null."""
    described = {"name": name, "in": place, "required": place == "path"}
    if description := schema.pop("description", None):
        described["description"] = description
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    if schema.get("default", ...) is None:
        del schema["default"]
    schema.update(kinds[0] if kinds else {})
    if "enum" in schema:
        schema.update(type="string", enum=[value for value in schema["enum"] if value is not None])
    described["schema"] = schema
    return described
