"""Where a withdrawal may go, in the words of each family. Pure."""

from __future__ import annotations

from chains.btc import address as btc
from chains.btc.network import NETWORKS
from chains.btc.script import dust_limit_sats
from chains.errors import InvalidAddress, InvalidValue
from chains.eth import address as evm
from chains.types import Address
from custody.errors import OrderMismatch
from policies.bundle import AssetEntry, BitcoinNetwork, Bundle, EvmKeyset

_ZERO = bytes(20)


def destination_of(bundle: Bundle, chain: str, text: str) -> Address:
    """The destination, which must be written in its canonical form.

    Raises:
        InvalidAddress: no address of this network, or one that money must not go to: on EVM chains the zero address,
            a listed token's contract, and the contracts of our own.
        OrderMismatch: an address of this network, but written otherwise (upper case bech32, no checksum).
    """
    network = bundle.network(chain)
    if isinstance(network, BitcoinNetwork):
        address = btc.parse_address(text, NETWORKS[network.network], chain)
    else:
        address = evm.parse_address(text, chain)
        _refuse_contracts(bundle, address)
    if address.text != text:
        # A signed order must say what the transaction pays letter by letter, and lower case hides a wrong digit.
        why = (
            "the same address as it must be written, with its checksum"
            if address.kind == "evm"
            else "in lower case"
        )
        raise OrderMismatch("destination", address.text, text, why)
    return address


def _refuse_contracts(bundle: Bundle, address: Address) -> None:
    """What is paid to these is lost, or does what no order says. (The key's address is the house's: `ownership`.)"""
    if address.script == _ZERO:
        raise InvalidAddress("the zero address: what is paid to it is lost")
    listed = {asset.contract: asset.id for asset in bundle.assets if asset.chain == address.chain}
    if address.text in listed:
        raise InvalidAddress(
            f"{address.text} is the contract of {listed[address.text]}: what is paid to it is lost"
        )
    for keyset in bundle.keysets:
        if keyset.chain != address.chain or not isinstance(keyset, EvmKeyset):
            continue
        if address.text in (keyset.factory, keyset.payout):
            raise InvalidAddress(f"{address.text} is a contract of {keyset.id}: nothing is paid to it")


def smallest_payment(address: Address) -> int:
    """Base units below which nodes do not relay a payment to this address (BTC: dust)."""
    return 1 if address.kind == "evm" else max(1, dust_limit_sats(address.script))


def check_payable(asset: AssetEntry) -> None:
    """Check that what arrives of an asset is what an order says.

    Raises:
        InvalidValue: its token takes a fee on transfer.
    """
    if "fee-on-transfer" in asset.traits:
        raise InvalidValue(
            f"asset {asset.id}: its token takes a fee on transfer: less would arrive than an order says"
        )
