"""What the recovery kit says of each wallet, as JSON objects. Pure: from the bundle, with addresses derived here.

Every first address is derived by two implementations that must agree. Nothing in it is secret; whoever reads it knows
all addresses and so all payments of the house.
"""

from __future__ import annotations

from typing import Any, Final

from chains.btc.hd import AccountKey, agreed_address
from chains.btc.multisig import agreed_multisig_address, parse_multisig, second_opinion, with_checksum
from chains.btc.network import NETWORKS
from chains.errors import DerivationDisagreement, InvalidValue
from chains.eth.forwarder import agreed_forwarder
from policies.bundle import (
    BitcoinKeyset,
    BitcoinNetwork,
    BitcoinVault,
    Bundle,
    Cosigner,
    EvmKeyset,
    EvmNetwork,
    EvmVault,
    GasPayer,
    Tier,
    WalletEntry,
)

Json = dict[str, Any]

FIRST: Final = 3
"""Addresses of each branch that people compare."""
OWNER_PATH: Final = "m/44'/60'/0'/0/0"
"""Where a holder's key for Safes is (BIP44)."""
_WORDS: Final = "the holder's BIP39 words (24, on paper or steel), or SLIP-39 shares of them"
_SHARES: Final = "SLIP-39 shares of the recovery holders whom the ceremony's printed record names"
_WRAPPED: Final = f"{_SHARES}, and the file {{}}.wrapped.json that the ceremony left beside its record"
_ENDED: Final = ("destroyed",)


def described(bundle: Bundle, *, addresses: int, made_at: int) -> Json:
    """The whole kit as one JSON object.

    Args:
        bundle: that the quorum has signed.
        addresses: how many of each branch are to be watched.
        made_at: UNIX seconds.

    Raises:
        InvalidValue: a key is malformed, or a vault's descriptor is not that of its cosigners.
        DerivationDisagreement: two implementations derive different addresses.
    """
    wallets = [each for each in bundle.wallets if each.state not in _ENDED]
    return {
        "type": "strongroom-recovery-kit",
        "v": 1,
        "made_at": made_at,
        "addresses": addresses,
        "bundle": {
            "version": bundle.version,
            "digest": bundle.digest().hex(),
            "issued_at": bundle.issued_at,
            "expires_at": bundle.expires_at,
        },
        "bitcoin": [
            _bitcoin(bundle, each) for each in wallets if isinstance(each, BitcoinKeyset | BitcoinVault)
        ],
        "ethereum": [
            _ethereum(bundle, each) for each in wallets if isinstance(each, EvmKeyset | EvmVault | GasPayer)
        ],
        "assets": [
            {
                "asset": each.id,
                "chain": each.chain,
                "contract": each.contract,
                "decimals": each.decimals,
            }
            for each in bundle.assets
        ],
    }


def watching(wallet: Json, addresses: int) -> Json:
    """What `importdescriptors` takes to find a wallet's coins, from the chain's first block on."""
    return {
        "desc": wallet["descriptor"],
        "active": True,
        "timestamp": 0,
        "range": [0, addresses - 1],
    }


def _common(bundle: Bundle, wallet: WalletEntry) -> Json:
    return {
        "wallet": wallet.id,
        "chain": wallet.chain,
        "tier": wallet.tier,
        "state": wallet.state,
    }


def _bitcoin(bundle: Bundle, wallet: BitcoinKeyset | BitcoinVault) -> Json:
    network = bundle.network(wallet.chain)
    assert isinstance(network, BitcoinNetwork), "the bundle's own checks see to that"
    if isinstance(wallet, BitcoinVault):
        keys = [_cosigner(each, wallet.tier) for each in wallet.cosigners]
        threshold, descriptor, first = _vault_text(wallet, network)
    else:
        keys = [_key(wallet.id, "the house", wallet.origin, wallet.account, _SHARES)]
        threshold, (descriptor, first) = 1, _keyset_text(wallet, network)
    receive, change = (_branch(descriptor, branch) for branch in (0, 1))
    return _common(bundle, wallet) | {
        "network": network.network,
        "kind": wallet.kind,
        "threshold": threshold,
        "keys": keys,
        "descriptor": descriptor,
        "receive_descriptor": receive,
        "change_descriptor": change,
        "first_addresses": first,
    }


def _vault_text(wallet: BitcoinVault, network: BitcoinNetwork) -> tuple[int, str, Json]:
    multisig = parse_multisig(
        wallet.threshold,
        [(each.origin, each.account) for each in wallet.cosigners],
        NETWORKS[network.network],
    )
    if multisig.descriptor != wallet.descriptor:
        raise InvalidValue(f"vault {wallet.id}: its descriptor in the bundle is not that of its cosigners")
    first = {
        name: [agreed_multisig_address(multisig, branch, index) for index in range(FIRST)]
        for branch, name in enumerate(("receive", "change"))
    }
    return wallet.threshold, multisig.descriptor, first


def _keyset_text(wallet: BitcoinKeyset, network: BitcoinNetwork) -> tuple[str, Json]:
    account = AccountKey.parse(wallet.account, NETWORKS[network.network], wallet.script)
    kind = {"p2wpkh": "wpkh", "p2tr": "tr"}[wallet.script]
    descriptor = with_checksum(f"{kind}([{wallet.origin.replace(chr(39), 'h')}]{wallet.account}/<0;1>/*)")
    first: Json = {"receive": [], "change": []}
    for branch, name in enumerate(first):
        for index in range(FIRST):
            address = agreed_address(account, branch, index)
            if second_opinion(descriptor, branch, index, account.network) != address:
                raise DerivationDisagreement(
                    f"{wallet.id} {branch}/{index}: its descriptor says another address"
                )
            first[name].append(address)
    return descriptor, first


def _branch(descriptor: str, branch: int) -> str:
    return with_checksum(descriptor.partition("#")[0].replace("<0;1>", str(branch)))


def _cosigner(each: Cosigner, tier: Tier) -> Json:
    backup = _WORDS if tier == "cold" else _SHARES
    return _key(each.id, each.organisation, each.origin, each.account, backup)


def _key(name: str, organisation: str, origin: str, account: str, backup: str) -> Json:
    return {
        "id": name,
        "organisation": organisation,
        "fingerprint": origin[:8],
        "path": "m" + origin[8:],
        "account": account,
        "backup": backup,
    }


def _ethereum(bundle: Bundle, wallet: EvmKeyset | EvmVault | GasPayer) -> Json:
    network = bundle.network(wallet.chain)
    assert isinstance(network, EvmNetwork), "the bundle's own checks see to that"
    said = _common(bundle, wallet) | {"chain_id": network.chain_id, "address": wallet.address}
    match wallet:
        case EvmVault():
            backup = _WORDS if wallet.tier == "cold" else _WRAPPED.format(wallet.id)
            return said | {
                "kind": "safe",
                "version": "1.4.1",
                "threshold": wallet.threshold,
                "owners": [
                    {
                        "id": each.id,
                        "organisation": each.organisation,
                        "address": each.address,
                        "path": OWNER_PATH if wallet.tier == "cold" else None,
                        "backup": backup,
                    }
                    for each in wallet.owners
                ],
            }
        case EvmKeyset():
            return said | {
                "kind": "key",
                "backup": _WRAPPED.format(wallet.id),
                "factory": wallet.factory,
                "forwarder": wallet.forwarder,
                "first_addresses": [
                    agreed_forwarder(wallet.factory, wallet.forwarder, index) for index in range(FIRST)
                ],
            }
        case GasPayer():
            return said | {"kind": "gas-payer", "backup": _WRAPPED.format(wallet.id)}
