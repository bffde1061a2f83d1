"""A whole house that is left: wallets of all tiers on both chains, keys of ceremonies and of holders, their backups."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import coincurve
import msgspec

from chains.btc.multisig import parse_multisig
from chains.btc.network import NETWORKS
from ops.devnet.anvil import Anvil
from ops.stack.contracts import OUTSIDE, ask, calldata, deploy, mined
from ops.stack.safes import deploy_contracts, deploy_safe
from policies.bundle import Bundle, Cosigner, EvmNetwork, Owner
from signers.airgap.keys import HolderKey, words_of
from signers.airgap.secret import Secret
from signers.keys.keyset import (
    BitcoinCosignerRecord,
    BitcoinKeysetRecord,
    EvmKeysetRecord,
    KeysetRecord,
    SafeOwnerRecord,
)
from tests.support.airgap import cold_bundle, holder_key
from tests.support.ceremonies import COSIGNER, EVM_KEY, SAFE_OWNER, WALLET, Site

HOLDERS: Final = tuple(holder_key(number) for number in range(5))
ETHER: Final = 10**18
_MEMBERS: Final = ("a", "b")
"""Of each warm wallet two members' backups are there. The third's is lost."""


def words(number: int) -> str:
    """What holder `number` has on paper."""
    return " ".join(words_of(Secret(bytes([number + 1]) * 32)))


def entropy(number: int) -> bytes:
    """What those words stand for."""
    return bytes([number + 1]) * 32


@dataclass(frozen=True)
class Backups:
    """What ceremonies left: shares at their holders, records and wrapped keys beside them."""

    sites: Mapping[str, Site]

    @classmethod
    def make(cls, root: Path) -> Backups:
        plans: dict[str, Mapping[str, Any]] = {"btc-hot": WALLET, "eth-hot": EVM_KEY}
        for member in _MEMBERS:
            plans[f"btc-warm/{member}"] = {**COSIGNER, "member": member}
            plans[f"eth-warm/{member}"] = {**SAFE_OWNER, "member": member}
        sites = {name: Site(root / name.replace("/", "-"), plan) for name, plan in plans.items()}
        with ThreadPoolExecutor(2) as both:
            list(both.map(Site.held, sites.values()))
        return cls(sites)

    def record(self, name: str) -> KeysetRecord:
        return self.sites[name].record().record.keyset

    def shares(self, name: str, holders: Sequence[str] = ("carl", "anna")) -> str:
        """What these holders type, one share a line."""
        return "".join(f"{self.sites[name].words(holder)}\n" for holder in holders)

    def wrapped(self, name: str) -> Path:
        site = self.sites[name]
        return site.backup / f"{site.id}.wrapped.json"


@dataclass(frozen=True)
class Tokens:
    """Two tokens; the second returns nothing, as USDT does."""

    usdc: str
    usdt: str


def house_bundle(backups: Backups, node: Anvil) -> tuple[Bundle, Tokens]:
    """The bundle of a house whose contracts are on the chain."""
    sender = node.accounts()[0]
    tokens = Tokens(
        *(
            deploy(node, sender, name, arguments, directory=OUTSIDE)
            for name, arguments in (("Token", ("Coin", "USDC", 6)), ("NoReturnToken", ()))
        )
    )
    made = cold_bundle(HOLDERS, issued_at=int(time.time()))
    hot = cast(EvmKeysetRecord, backups.record("eth-hot"))
    safes = deploy_contracts(node, sender)
    owners = {"eth-cold": _holders_own(HOLDERS), "eth-warm": _warm_owners(backups)}
    contracts = {"USDC": tokens.usdc, "USDT": tokens.usdt}
    factory = deploy(node, sender, "ForwarderFactory", (hot.address, sender))
    changes: dict[str, dict[str, Any]] = {
        name: {
            "owners": of,
            "address": deploy_safe(
                node, sender, safes, [each.address for each in of], 3 if len(of) == 5 else 2
            ),
        }
        for name, of in owners.items()
    }
    changes["btc-warm"] = _warm_cosigners(backups)
    wallet = cast(BitcoinKeysetRecord, backups.record("btc-hot"))
    changes["btc-hot"] = {
        "account": wallet.account, "origin": wallet.origin, "attestation_key": wallet.attestation_key
    }  # fmt: skip
    changes["eth-hot"] = {
        "address": hot.address,
        "attestation_key": hot.attestation_key,
        "factory": factory,
        "forwarder": ask(node, factory, "initcodeHash()", "bytes32").hex(),
    }
    return msgspec.structs.replace(
        made,
        networks=tuple(
            msgspec.structs.replace(each, chain_id=node.chain_id) if isinstance(each, EvmNetwork) else each
            for each in made.networks
        ),
        assets=tuple(
            msgspec.structs.replace(each, contract=contracts[each.id]) if each.id in contracts else each
            for each in made.assets
        ),
        keysets=tuple(_changed(each, changes) for each in made.keysets),
        vaults=tuple(_changed(each, changes) for each in made.vaults),
    ), tokens


def mint(node: Anvil, token: str, to: str, units: int) -> None:
    """Anybody may: it is a test's token."""
    mined(node, node.transact(node.accounts()[0], token, calldata("mint(address,uint256)", to, units)))


def token_balance(node: Anvil, token: str, address: str) -> int:
    return int(ask(node, token, "balanceOf(address)", "uint256", address))


def _changed(each: Any, changes: Mapping[str, dict[str, Any]]) -> Any:
    return msgspec.structs.replace(each, **changes.get(each.id, {}))


def _holders_own(keys: Sequence[HolderKey]) -> tuple[Owner, ...]:
    return tuple(
        Owner(id=f"holder-{at}", organisation=f"org-{at}", address=key.evm_address)
        for at, key in enumerate(keys)
    )


def _warm_owners(backups: Backups) -> tuple[Owner, ...]:
    known = [cast(SafeOwnerRecord, backups.record(f"eth-warm/{member}")).address for member in _MEMBERS]
    lost = HolderKey(Secret(coincurve.PrivateKey().secret), NETWORKS["regtest"]).evm_address
    return tuple(
        Owner(id=name, organisation=f"house-{name}", address=address)
        for name, address in zip((*_MEMBERS, "lost"), (*known, lost), strict=True)
    )


def _warm_cosigners(backups: Backups) -> dict[str, Any]:
    records = [cast(BitcoinCosignerRecord, backups.record(f"btc-warm/{member}")) for member in _MEMBERS]
    lost = HolderKey(Secret(coincurve.PrivateKey().secret), NETWORKS["regtest"])
    members = [*((each.origin, each.account) for each in records), (lost.origin_text, lost.xpub)]
    return {
        "cosigners": tuple(
            Cosigner(id=name, organisation=f"house-{name}", account=account, origin=origin)
            for name, (origin, account) in zip((*_MEMBERS, "lost"), members, strict=True)
        ),
        "descriptor": parse_multisig(2, members, NETWORKS["regtest"]).descriptor,
    }
