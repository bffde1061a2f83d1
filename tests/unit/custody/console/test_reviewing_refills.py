"""What people read before they approve a refill: derived from intent and bundle here, whatever the service says."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest

from custody.console.reviewing import NotGenuine
from custody.console.reviewing_refills import review_refill
from custody.deposits.outputs import outputs_of
from policies.bundle import Bundle
from policies.intent import Intent, Kind
from tests.fakes.signing import CHAIN, NOW, SoftKeys
from tests.fakes.vault_signing import VAULT, SoftCosigner
from tests.fakes.vault_till import TierWorld

HOT = "btc-hot"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    cosigners = [SoftCosigner.make(number).record for number in range(3)]
    return TierWorld(SoftKeys.make().record, cosigners=cosigners).bundle()


def question(bundle: Bundle, /, **changes: Any) -> dict[str, Any]:
    """One that is genuine: hot to the vault, at its change address 4; `changes` are of the intent or beside it."""
    beside = {
        name: changes.pop(name) for name in ("target", "place", "refill", "intent_digest") if name in changes
    }
    fields: dict[str, Any] = {
        "v": 1,
        "kind": Kind.REFILL,
        "id": str(uuid.uuid4()),
        "chain": CHAIN,
        "keyset": HOT,
        "tier": "hot",
        "asset": "BTC",
        "destination": outputs_of(bundle, bundle.wallet(VAULT)).agreed_address(1, 4),
        "amount": "5000000",
        "order": None,
        "policy_version": bundle.version,
    }
    intent = Intent(**(fields | changes))
    asked = {
        "refill": intent.id,
        "target": VAULT,
        "place": 4,
        "about": "hot holds too much",
        "intent": intent.to_object(),
        "intent_digest": intent.digest_hex(),
        "groups": ["treasurer"],
    }
    return asked | beside


def test_a_refill_is_shown_with_the_address_that_was_derived_here(bundle: Bundle) -> None:
    found = review_refill(question(bundle), bundle, now=NOW)
    lines = dict(found.lines(bundle))
    assert lines["move"] == f"0.05000000 BTC on {CHAIN} (5000000 base units)"
    assert lines["to"].startswith(found.intent.destination)
    assert f"our warm wallet {VAULT} (change address 4), derived here" in lines["to"]
    assert "change goes back" in lines["from"]
    assert found.groups == ("treasurer",)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"destination": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"}, "is no address of btc-warm"),
        ({"place": 5}, "is no address of btc-warm"),
        ({"place": None}, "does not say which address"),
        ({"place": True}, "does not say which address"),
        ({"target": HOT}, "is not the active wallet of another tier"),
        ({"target": "somebody"}, "somebody"),
        ({"keyset": VAULT}, "is not the active hot wallet"),
        ({"amount": "0"}, "it is no refill"),
        ({"kind": Kind.ROTATION}, "it is no refill"),
        ({"order": "ab" * 32}, "it is no refill"),
        ({"policy_version": 7}, "decided under version 7"),
        ({"refill": "00000000-0000-0000-0000-000000000000"}, "another one's"),
        ({"intent_digest": "00" * 32}, "another one's"),
    ],
    ids=str,
)
def test_one_that_is_not_what_it_seems_is_not_signed(
    bundle: Bundle, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(NotGenuine, match=why):
        review_refill(question(bundle, **changes), bundle, now=NOW)


def test_a_target_that_is_not_active_is_refused(bundle: Bundle) -> None:
    [vault] = bundle.vaults
    retired = msgspec.structs.replace(bundle, vaults=(msgspec.structs.replace(vault, state="deactivated"),))
    with pytest.raises(NotGenuine, match="is not the active wallet"):
        review_refill(question(bundle), retired, now=NOW)
