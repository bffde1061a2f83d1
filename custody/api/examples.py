"""One answer of each kind, for the OpenAPI document; a test reads each of them with the schema it belongs to."""

from __future__ import annotations

from typing import Any, Final

_AT: Final = "2026-03-02T10:15:00.000000Z"
_ADDRESS: Final = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
_OUTSIDE: Final = "2MvFmznfQjLsfocBv45Ty89SqXsHkzjX1Sp"
_ORDER: Final = "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8e"
_CORE: Final = "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8f"
_TRANSACTION: Final = "0192f0c1-6a10-7f9a-806d-88557c67eb66"
_FIRST_TXID: Final = "d4bf6eaa79f8c6cd3b59bdd968241c9d1cae1b832530cd412b032eff9281bd26"
_TXID: Final = "80d48c9417e305f490843a7b3979e9fc9a0bdc53f2217893a851b1677312898a"
_DEPOSIT: Final = "60e3e5a7-e722-5a81-a26d-3e9c2e8bd01d"

_CUSTOMER: Final = {"id": "alice", "state": "active", "reason": "", "created_at": _AT}
_DEPOSIT_ADDRESS: Final = {
    "address": _ADDRESS,
    "chain": "bitcoin-regtest",
    "asset": "BTC",
    "customer": "alice",
    "attestation": {
        "attestation": {
            "v": 1,
            "chain": "bitcoin-regtest",
            "keyset": "btc-hot",
            "customer": "alice",
            "asset": "BTC",
            "path": "m/84'/1'/0'/0/0",
            "address": _ADDRESS,
        },
        "signature": "A" * 86 + "==",
    },
    "created_at": _AT,
}
_LINE: Final = {
    "seq": 1,
    "account": "available",
    "type": "deposit",
    "asset": "BTC",
    "amount": "0.50000000",
    "balance_before": "0.00000000",
    "balance_after": "0.50000000",
    "reference": f"deposit:{_DEPOSIT}",
    "transfer": "701264ae-5d35-5b49-aaf3-c728eba4e2a6",
    "at": _AT,
}
PERIOD_CSV: Final = (
    "seq,account,type,asset,amount,balance_before,balance_after,reference,transfer,at\r\n"
    ",available,opening,BTC,,,0.00000000,,,2026-03-01 00:00:00+00:00\r\n"
)
"""The first lines of a statement over a period as CSV."""
_DEPOSIT_OUT: Final = {
    "id": _DEPOSIT,
    "customer": "alice",
    "asset": "BTC",
    "amount": "0.50000000",
    "chain": "bitcoin-regtest",
    "address": _ADDRESS,
    "txid": _FIRST_TXID,
    "resource": f"{_FIRST_TXID}:0",
    "state": "confirming",
    "height": 204,
    "confirmations": 2,
    "confirmations_needed": 6,
    "created_at": _AT,
    "updated_at": _AT,
}
_WITHDRAWAL: Final = {
    "id": _ORDER,
    "caller": "exchange",
    "customer": "alice",
    "chain": "bitcoin-regtest",
    "asset": "BTC",
    "amount": "0.01000000",
    "fee": "0.00050000",
    "fee_ceiling": {"asset": "BTC", "amount": "0.00050000"},
    "destination": _OUTSIDE,
    "state": "confirming",
    "reason": "",
    "tier": "hot",
    "settlement": "chain",
    "transaction": _TRANSACTION,
    "versions": [
        {
            "version": 1,
            "txid": _FIRST_TXID,
            "state": "signed",
            "network_fee": {"asset": "BTC", "amount": "0.00000142"},
            "feerate": 1000,
        },
        {
            "version": 2,
            "txid": _TXID,
            "state": "signed",
            "network_fee": {"asset": "BTC", "amount": "0.00002840"},
            "feerate": 20000,
        },
    ],
    "txids": [_FIRST_TXID, _TXID],
    "confirmed_txid": _TXID,
    "network_fee": {"asset": "BTC", "amount": "0.00002840"},
    "confirmations": 1,
    "warnings": [],
    "expires_at": "2026-03-02T11:15:00Z",
    "created_at": _AT,
    "updated_at": _AT,
}
_ENTRY: Final = {
    "id": "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d90",
    "owner": "alice",
    "chain": "bitcoin-regtest",
    "address": _ADDRESS,
    "provenance": "typed by the customer in session 4711",
    "label": "cold wallet",
    "requested_by": "exchange",
    "state": "cooling",
    "usable_at": "2026-03-03T10:15:00Z",
    "warnings": [],
    "created_at": _AT,
    "updated_at": _AT,
}
_QUESTION: Final = {
    "withdrawal": _ORDER,
    "refill": None,
    "customer": "alice",
    "order": {
        "v": 1,
        "id": _ORDER,
        "caller": "exchange",
        "customer": "alice",
        "chain": "bitcoin-regtest",
        "asset": "BTC",
        "destination": _OUTSIDE,
        "amount": "1000000",
        "fee_ceiling": "50000",
        "expires_at": 1893456000,
    },
    "order_signature": "A" * 86 + "==",
    "target": None,
    "place": None,
    "about": "",
    "intent": {
        "v": 1,
        "kind": "payment",
        "id": _ORDER,
        "chain": "bitcoin-regtest",
        "keyset": "btc-hot",
        "tier": "hot",
        "asset": "BTC",
        "destination": _OUTSIDE,
        "amount": "1000000",
        "order": "3d" * 32,
        "policy_version": 3,
    },
    "intent_digest": "5f" * 32,
    "asked": "2 of operators",
    "groups": ["operators"],
    "given": [{"approver": "ada", "group": "operators", "expires_at": _AT}],
    "lacking": "1 of 2 of operators",
    "created_at": _AT,
    "expires_at": _AT,
}
_SWEEP: Final = {
    "id": "0192f0c1-6a0f-7c11-9b3a-6f2d1e0c9a87",
    "chain": "bitcoin-regtest",
    "keyset": "btc-hot",
    "kind": "consolidation",
    "state": "confirmed",
    "reason": "many",
    "addresses": 240,
    "amounts": [{"asset": "BTC", "amount": "0.31200000"}],
    "transaction": _TRANSACTION,
    "txid": _FIRST_TXID,
    "network_fee": {"asset": "BTC", "amount": "0.00016380"},
    "created_at": _AT,
    "updated_at": _AT,
}
_EVENT: Final = {
    "type": "deposit.credited",
    "subject": _DEPOSIT,
    "data": {
        "id": _DEPOSIT,
        "customer": "alice",
        "asset": "BTC",
        "amount": "0.50000000",
        "state": "credited",
    },
    "at": _AT,
}
_ALERT: Final = {
    "id": 7,
    "severity": "warning",
    "type": "tier.insufficient_funds",
    "subject": "btc-hot",
    "message": "2 withdrawals wait for funds in btc-hot",
    "data": {},
    "at": _AT,
    "resolved_at": None,
}


def _page(item: dict[str, Any]) -> dict[str, Any]:
    return {"items": [item], "next": None}


_TIER: Final = {
    "tier": "hot",
    "asset": "BTC",
    "chain": "bitcoin-regtest",
    "keyset": "btc-hot",
    "payment_below": "0.10000000",
    "window_cap": "5.00000000",
    "window_seconds": 86400,
    "holds": "12.40000000",
    "share": "1.12",
    "holding_cap": "10.00000000",
    "target": "9.00000000",
    "refill_below": "3.00000000",
    "excess": "2.40000000",
    "waited_for": "0.15000000",
    "coming": "0.00000000",
    "free": "12.25000000",
    "outflow_per_hour": "0.40000000",
    "dry_in_seconds": 110250,
    "proven": None,
    "history": [{"day": "2026-11-20", "holds": "12.40000000"}],
}
_REFILL: Final = {
    "id": "0192f0c1-9d40-7c33-8e5f-7a8b9c0d1e30",
    "chain": "bitcoin-regtest",
    "asset": "BTC",
    "amount": "3.40000000",
    "source": "btc-hot",
    "tier": "hot",
    "target": "btc-warm",
    "destination": _OUTSIDE,
    "why": "excess",
    "about": "hot would keep 12.4 BTC and may hold 10 BTC at most",
    "proposed_by": "house",
    "state": "broadcast",
    "reason": "",
    "policy_version": 3,
    "transaction": "0192f0c1-9d40-7c33-8e5f-7a8b9c0d1e31",
    "created_at": _AT,
    "updated_at": _AT,
}
_STATUS: Final = {
    "at": _AT,
    "ready": True,
    "attention": False,
    "parts": [
        {"name": "api", "ok": True, "detail": "answers"},
        {"name": "monitor bitcoin-regtest", "ok": True, "detail": "at height 242"},
    ],
    "chains": [
        {
            "chain": "bitcoin-regtest",
            "family": "btc",
            "height": 242,
            "node_tip": 242,
            "behind_blocks": 0,
            "final_height": 242,
            "heard_seconds": 2,
            "trouble": None,
            "halted": None,
        }
    ],
    "deposits": [
        {
            "asset": "BTC",
            "state": "confirming",
            "count": 3,
            "amount": "0.75000000",
            "oldest_at": _AT,
            "reasons": [],
        }
    ],
    "withdrawals": [
        {
            "asset": "BTC",
            "state": "queued",
            "count": 2,
            "amount": "0.15000000",
            "oldest_at": _AT,
            "reasons": [
                {"reason": "insufficient-hot-funds: 0.15010000 BTC are needed with fees", "count": 2}
            ],
        }
    ],
    "sweeps": [
        {
            "chain": "bitcoin-regtest",
            "kind": "consolidation",
            "state": "broadcast",
            "count": 1,
            "oldest_at": _AT,
        }
    ],
    "transactions": [
        {"chain": "bitcoin-regtest", "kind": "payment", "state": "confirming", "count": 4, "oldest_at": _AT}
    ],
    "tiers": [_TIER],
    "halts": [],
    "alerts": [_ALERT],
}


_SESSION: Final = {
    "id": "0192f0c1-a1b2-7c33-8e5f-7a8b9c0d1e31",
    "wallet": "btc-cold",
    "chain": "bitcoin-regtest",
    "transaction": _TRANSACTION,
    "version": 1,
    "kind": "payment",
    "transaction_state": "built",
    "state": "collecting",
    "does": [{"kind": "payment", "asset": "BTC", "amount": "12.00000000", "destination": _OUTSIDE}],
    "fee": "0.00012400",
    "threshold": 3,
    "members": 5,
    "signed": ["ines"],
    "missing": 2,
    "asked": [
        {"member": "ines", "asked_by": "file", "asked_at": _AT, "signed": True, "refused": ""},
        {"member": "kira", "asked_by": "file", "asked_at": _AT, "signed": False, "refused": ""},
    ],
    "may_confirm": True,
    "expires_at": "2026-03-02T22:15:00.000000Z",
    "created_at": _AT,
}


ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "CustomerOut": _CUSTOMER,
    "Page_CustomerOut_": _page(_CUSTOMER),
    "AddressOut": _DEPOSIT_ADDRESS,
    "Page_AddressOut_": _page(_DEPOSIT_ADDRESS),
    "Balances": {
        "customer": "alice",
        "balances": [
            {"asset": "BTC", "available": "0.45600000", "frozen": "0.01050000", "trading": "0.00000000"}
        ],
    },
    "Page_LineOut_": _page(_LINE),
    "PeriodOut": {
        "customer": "alice",
        "asset": "BTC",
        "since": "2026-03-01T00:00:00.000000Z",
        "until": "2026-04-01T00:00:00.000000Z",
        "opening": {
            "asset": "BTC",
            "available": "0.00000000",
            "frozen": "0.00000000",
            "trading": "0.00000000",
        },
        "closing": {
            "asset": "BTC",
            "available": "0.50000000",
            "frozen": "0.00000000",
            "trading": "0.00000000",
        },
        "lines": [_LINE],
    },
    "DepositOut": _DEPOSIT_OUT,
    "Page_DepositOut_": _page(_DEPOSIT_OUT),
    "WithdrawalOut": _WITHDRAWAL,
    "Page_WithdrawalOut_": _page(_WITHDRAWAL),
    "StatementOut": {"kind": "freeze", "digest": "8c" * 32, "frozen": ["customer:alice"]},
    "ApprovalOut": {
        "digest": "8c" * 32,
        "withdrawal": _ORDER,
        "refill": None,
        "state": "awaiting_approval",
        "reason": "approval: 1 of 2 of operators",
    },
    "Tiers": {
        "bundle_version": 3,
        "items": [_TIER],
        "together": [
            {
                "tiers": ["hot", "warm"],
                "asset": "BTC",
                "holds": "48.20000000",
                "holding_cap": "50.00000000",
            }
        ],
        "refills": [_REFILL],
    },
    "Page_RefillOut_": _page(_REFILL),
    "SessionOut": _SESSION,
    "Page_SessionOut_": _page(_SESSION),
    "RefillDetail": {
        **_REFILL,
        "history": [{"event": "approve", "state": "approved", "detail": {"reason": "approved"}, "at": _AT}],
    },
    "QuestionOut": _QUESTION,
    "Page_QuestionOut_": _page(_QUESTION),
    "TravelRuleOut": {"withdrawal": _ORDER, "state": "pending", "attached_at": _AT, "delivered_at": None},
    "Page_ActionOut_": _page(
        {
            "number": 17,
            "at": "2026-11-20T09:30:00Z",
            "operator": "tess",
            "key": "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
            "via": "host",
            "origin": "tess@ops-1",
            "action": "lift",
            "parameters": {"scope": "all", "reason": "explained"},
            "outcome": "asked",
            "reason": "1 of operators",
            "decision": None,
            "bundle_version": 7,
            "asked_in": None,
            "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        }
    ),
    "Page_CaseOut_": _page(
        {
            "id": "0192f0c1-9d40-7c33-8e5f-7a8b9c0d1e2f",
            "kind": "withdrawal",
            "subject": _ORDER,
            "chain": "bitcoin-regtest",
            "address": _OUTSIDE,
            "findings": [
                {
                    "provider": "lists",
                    "listed": _OUTSIDE,
                    "reason": "sanctioned",
                    "source": "OFAC SDN",
                    "version": "20261120-1",
                }
            ],
            "state": "open",
            "resolution": "",
            "resolved_by": "",
            "opened_at": _AT,
            "resolved_at": None,
        }
    ),
    "Page_ScreeningOut_": _page(
        {
            "kind": "withdrawal",
            "subject": _ORDER,
            "at": _AT,
            "verdicts": [
                {
                    "provider": "lists",
                    "verdict": "clear",
                    "version": "20261120-1",
                    "findings": [],
                    "why": None,
                }
            ],
        }
    ),
    "EntryOut": _ENTRY,
    "Page_EntryOut_": _page(_ENTRY),
    "ChallengeOut": {
        "id": "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d91",
        "owner": "alice",
        "chain": "bitcoin-regtest",
        "address": _ADDRESS,
        "text": "strongroom: I hold the key of this address.\nowner: alice\nchain: bitcoin-regtest\n"
        f"address: {_ADDRESS}\nnonce: 3b1f0c2e9a7d4c58b6e1a09f7d2c4e61\nuntil: 2026-03-03T10:15:00Z",
        "expires_at": "2026-03-03T10:15:00Z",
        "proved_at": None,
    },
    "SweepOut": _SWEEP,
    "Page_SweepOut_": _page(_SWEEP),
    "BumpOut": {
        "id": "0192f0c1-7b20-7a11-8c3d-5e6f7a8b9c0d",
        "withdrawal": _ORDER,
        "transaction": _TRANSACTION,
        "feerate": 25000,
    },
    "Networks": {
        "bundle_version": 1,
        "items": [
            {
                "chain": "bitcoin-regtest",
                "family": "btc",
                "chain_id": None,
                "native_asset": "BTC",
                "settle_blocks": 6,
                "fee_cap": {"asset": "BTC", "amount": "0.01000000"},
            },
            {
                "chain": "ethereum-devnet",
                "family": "evm",
                "chain_id": 31337,
                "native_asset": "ETH",
                "settle_blocks": 1,
                "fee_cap": {"asset": "ETH", "amount": "0.500000000000000000"},
            },
        ],
    },
    "Assets": {
        "bundle_version": 1,
        "items": [
            {
                "id": "BTC",
                "chain": "bitcoin-regtest",
                "family": "btc",
                "contract": None,
                "decimals": 8,
                "traits": [],
                "native_asset": "BTC",
                "minimum_deposit": "0.00001000",
                "withdrawal_fee": "0.00050000",
                "confirmations": [{"from_amount": "0.00000000", "blocks": 6}],
                "settle_blocks": 6,
            },
            {
                "id": "USDX",
                "chain": "ethereum-devnet",
                "family": "evm",
                "contract": "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512",
                "decimals": 6,
                "traits": ["no-return"],
                "native_asset": "ETH",
                "minimum_deposit": "1.000000",
                "withdrawal_fee": "2.000000",
                "confirmations": [{"from_amount": "0.000000", "blocks": 1}],
                "settle_blocks": 1,
            },
        ],
    },
    "Fees": {
        "bundle_version": 1,
        "items": [
            {
                "asset": "BTC",
                "chain": "bitcoin-regtest",
                "fee_ceiling": {"asset": "BTC", "amount": "0.00050000", "units": "50000"},
                "feerate": 8000,
                "at": _AT,
                "reason": "",
            },
            {
                "asset": "USDX",
                "chain": "ethereum-devnet",
                "fee_ceiling": None,
                "feerate": None,
                "at": None,
                "reason": "no worker has seen yet what a payment on ethereum-devnet costs",
            },
        ],
    },
    "SettlementOut": {
        "core": _CORE,
        "first": 1,
        "last": 12,
        "complete": True,
        "fills": 1,
        "settled": "now",
    },
    "TradingTransferOut": {
        "id": "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d9a",
        "customer": "alice",
        "asset": "BTC",
        "units": "100000000",
        "to": "trading",
        "at": _AT,
    },
    "TradingBalances": {
        "core": _CORE,
        "settled": {"last": 12, "complete": True, "fill_sequence": 12, "fill_index": 1},
        "items": [{"customer": "alice", "asset": "BTC", "units": "180000000"}],
        "next": None,
    },
    "StatusOut": _STATUS,
    "Page_EventOut_": {"items": [_EVENT], "next": "ZXZlbnRzOjgyMy01"},
    "Page_AlertOut_": _page(_ALERT),
}
"""By the schema's name in the document."""
