"""A key-set's keys together with its family's rules: what signs, verifies what was signed, and derives addresses.

Keys may be anywhere (an HSM, a sealed seed); nothing that they return is released before another library has
verified it.
"""

from signers.wallets.btc import (
    BitcoinKeys,
    BitcoinVaultWallet,
    BitcoinWallet,
    CosignerKeys,
    verifies_taproot,
)
from signers.wallets.common import Kept, Keys, Wallet, attested, verifies
from signers.wallets.evm import EvmKeys, EvmWallet, GasPayerWallet, SafeWallet, evm_wallet

__all__ = [
    "BitcoinKeys",
    "BitcoinVaultWallet",
    "BitcoinWallet",
    "CosignerKeys",
    "EvmKeys",
    "EvmWallet",
    "GasPayerWallet",
    "Kept",
    "Keys",
    "SafeWallet",
    "Wallet",
    "attested",
    "evm_wallet",
    "verifies",
    "verifies_taproot",
]
