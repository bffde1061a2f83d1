"""What the kit says of wallets of each kind, and which it refuses to describe."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from embit.descriptor import Descriptor
from embit.networks import NETWORKS as EMBIT

from chains.errors import InvalidValue
from custody.recovery import readme
from custody.recovery.describe import described
from policies.bundle import BitcoinKeyset, Bundle, GasPayer
from tests.support.airgap import cold_bundle, holder_key

HOLDERS = tuple(holder_key(number) for number in range(5))
# BIP86's own first vectors, of the words "abandon ... about".
TAPROOT = (
    "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcL"
    "teoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ"
)
FIRST = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"


def house(**changes: Any) -> Bundle:
    """Only wallets whose keys are genuine."""
    made = cold_bundle(HOLDERS)
    cold = tuple(each for each in made.vaults if each.tier == "cold")
    fields: dict[str, Any] = {"vaults": cold, "keysets": (), "breakers": (), "caps": ()}
    return msgspec.structs.replace(made, **(fields | changes))


def kit(bundle: Bundle) -> dict[str, Any]:
    return described(bundle, addresses=100, made_at=1_800_000_000)


def test_a_vaults_branches_are_described_as_other_libraries_read_them() -> None:
    [wallet] = kit(house())["bitcoin"]
    assert (wallet["threshold"], len(wallet["keys"]), wallet["network"]) == (3, 5, "regtest")
    for branch, name in enumerate(("receive", "change")):
        one = Descriptor.from_string(wallet[f"{name}_descriptor"])
        found = [one.derive(index).address(EMBIT["regtest"]) for index in range(3)]
        assert found == wallet["first_addresses"][name]
        assert f"/{branch}/*" in wallet[f"{name}_descriptor"]
    assert {key["path"] for key in wallet["keys"]} == {"m/48'/1'/0'/2'"}
    assert all("BIP39 words" in key["backup"] for key in wallet["keys"])


def test_a_taproot_wallet_is_described_by_its_tr_descriptor() -> None:
    made = cold_bundle(HOLDERS)
    network = msgspec.structs.replace(made.networks[0], network="main")
    keyset = BitcoinKeyset(
        id="btc-hot", chain="bitcoin", tier="hot", attestation_key="0" * 64, script="p2tr", account=TAPROOT,
        origin="73c5da0a/86'/0'/0'",
    )  # fmt: skip
    bundle = house(networks=(network, made.networks[1]), vaults=(), keysets=(keyset,))
    [wallet] = kit(bundle)["bitcoin"]
    assert wallet["descriptor"].startswith("tr([73c5da0a/86h/0h/0h]xpub6BgBgsesp")
    assert wallet["first_addresses"]["receive"][0] == FIRST
    assert "SLIP-39 shares" in wallet["keys"][0]["backup"]


def test_gas_payers_are_described_and_what_is_destroyed_is_not() -> None:
    payer = GasPayer(
        id="gas", chain="ethereum", address="0x" + "5" * 40, attestation_key="1" * 64, holding_cap="1"
    )
    found = kit(house(gas_payers=(payer,)))
    assert [(each["wallet"], each["kind"]) for each in found["ethereum"]] == [
        ("eth-cold", "safe"),
        ("gas", "gas-payer"),
    ]
    assert "[pay gas]" in readme.text(found, expired=False)
    gone = tuple(msgspec.structs.replace(each, state="destroyed") for each in house().vaults)
    found = kit(house(vaults=gone))
    assert (found["bitcoin"], found["ethereum"]) == ([], [])


def test_a_descriptor_that_is_not_that_of_its_cosigners_gives_no_kit() -> None:
    made = house()
    bent = tuple(
        msgspec.structs.replace(each, descriptor=each.descriptor.replace("sortedmulti(3", "sortedmulti(2"))
        if each.id == "btc-cold" and each.family == "btc"
        else each
        for each in made.vaults
    )
    with pytest.raises(
        InvalidValue, match="btc-cold: its descriptor in the bundle is not that of its cosigners"
    ):
        kit(house(vaults=bent))
