"""Custody's side of the port, over its REST API, with the trading core's own key."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from custody.trading.failures import CustodyRefused, CustodyUnavailable
from custody.trading.ports import Batch, Cursor, Fill, Transfer
from custody.web.client import ApiRefused, ApiUnavailable, RestCaller

DECISIONS: Final = frozenset(
    {
        "customer-frozen",
        "insufficient-funds",
        "unknown-customer",
        "transfer-exists",
        "ledger-rejected",
        "settlement-out-of-order",
    }
)
"""Problems that are custody's word on the matter. Any other, such as a scope that is missing, somebody can mend."""


class RestCustody:
    """`Custody` over HTTP. One request a call: whoever calls knows when to repeat.

    Args:
        caller: with `retries=0`; its scope in the bundle is `trading`.
    """

    def __init__(self, caller: RestCaller) -> None:
        self._caller = caller

    def settle(self, core: UUID, batch: Batch) -> None:
        """See `Custody`."""
        body = {
            "core": str(core),
            "first": batch.first,
            "last": batch.last,
            "complete": batch.complete,
            "fills": [_fill(fill) for fill in batch.fills],
        }
        self._post("/v1/trading/settlements", body)

    def move(self, transfer: Transfer) -> None:
        """See `Custody`."""
        body = {
            "id": transfer.id,
            "customer": transfer.customer,
            "asset": transfer.asset,
            "units": str(transfer.units),
            "to": transfer.to,
        }
        self._post("/v1/trading/transfers", body)

    def cursor(self, core: UUID) -> Cursor:
        """See `Custody`."""
        try:
            settled = self._caller.get("/v1/trading/balances", {"core": str(core), "limit": 1})["settled"]
        except ApiUnavailable as error:
            raise CustodyUnavailable(str(error)) from None
        except ApiRefused as error:
            raise CustodyUnavailable(str(error)) from None
        index = settled["fill_index"] if settled["fill_sequence"] else -1
        return Cursor(settled["last"], settled["complete"], settled["fill_sequence"], index)

    def _post(self, path: str, body: dict[str, Any]) -> None:
        # What is asked for has an id of its own, so each try has a new Idempotency-Key: a refusal must not be
        # remembered, as what was refused today (frozen, halted) can be right tomorrow.
        try:
            self._caller.post(path, body)
        except ApiUnavailable as error:
            raise CustodyUnavailable(str(error)) from None
        except ApiRefused as error:
            if error.kind in DECISIONS:
                raise CustodyRefused(error.kind, str(error.problem.get("detail", ""))) from None
            raise CustodyUnavailable(str(error)) from None


def _fill(fill: Fill) -> dict[str, Any]:
    return {
        "sequence": fill.sequence,
        "index": fill.index,
        "base": fill.base,
        "quote": fill.quote,
        "buyer": fill.buyer,
        "seller": fill.seller,
        "base_units": str(fill.base_units),
        "quote_units": str(fill.quote_units),
        "buyer_fee": str(fill.buyer_fee),
        "seller_fee": str(fill.seller_fee),
    }
