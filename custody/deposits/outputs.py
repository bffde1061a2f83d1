"""The outputs of a Bitcoin wallet of the bundle: of an HD key-set or of a vault."""

from __future__ import annotations

from functools import lru_cache

from chains.btc.hd import AccountKey, Origin
from chains.btc.multisig import parse_multisig
from chains.btc.network import NETWORKS
from chains.btc.outputs import KeyOutputs, MultisigOutputs, Outputs
from chains.errors import InvalidValue
from policies.bundle import BitcoinKeyset, BitcoinNetwork, BitcoinVault, Bundle, WalletEntry


def outputs_of(bundle: Bundle, wallet: WalletEntry) -> Outputs:
    """Scripts and addresses of a wallet.

    Raises:
        InvalidValue: it is of another family than its chain, its keys are malformed, or its descriptor is not the one
            that its cosigners have together.
    """
    network = bundle.network(wallet.chain)
    if not isinstance(network, BitcoinNetwork) or not isinstance(wallet, BitcoinKeyset | BitcoinVault):
        raise InvalidValue(f"{wallet.id} on {wallet.chain} is no wallet of the Bitcoin family")
    return _outputs(wallet, network.network)


@lru_cache(maxsize=64)
def _outputs(wallet: BitcoinKeyset | BitcoinVault, network: str) -> Outputs:
    found = NETWORKS[network]
    if isinstance(wallet, BitcoinKeyset):
        account = AccountKey.parse(wallet.account, found, wallet.script)
        return KeyOutputs(Origin.parse(wallet.origin), account)
    members = [(each.origin, each.account) for each in wallet.cosigners]
    multisig = parse_multisig(wallet.threshold, members, found)
    if multisig.descriptor != wallet.descriptor:
        raise InvalidValue(
            f"vault {wallet.id}: its cosigners have another descriptor together: {multisig.descriptor}"
        )
    return MultisigOutputs(multisig)
