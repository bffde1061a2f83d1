"""The guard's part for an HD wallet on Bitcoin: P2WPKH or P2TR coins of one key-set. Pure."""

from __future__ import annotations

from typing import Final

from chains.btc.hd import AccountKey, Origin
from chains.btc.script import key_script
from policies.bundle import BitcoinKeyset, NetworkEntry, WalletEntry
from signers.guard.btc_scripts import KeysetScripts
from signers.guard.btc_shape import KINDS, BitcoinUnsigned, check_network, decoded, find, unsigned_of
from signers.guard.examined import Findings, Grounds, Unreadable
from signers.keys.keyset import BitcoinKeysetRecord
from signers.ports import SignRequest


class BitcoinRules:
    """An HD wallet's `FamilyRules`.

    Args:
        record: the signer's own record of the key-set.
        account: its account public key.
    """

    kinds: Final = KINDS

    def __init__(self, record: BitcoinKeysetRecord, account: AccountKey) -> None:
        self._record, self._own = record, KeysetScripts(Origin.parse(record.origin), account)

    def check_keyset(self, keyset: WalletEntry, network: NetworkEntry) -> None:
        """Check that the bundle means these keys, on the network they are for. Raises Unreadable."""
        record = self._record
        ours = (record.id, record.script, record.account, record.origin, record.attestation_key)
        if not isinstance(keyset, BitcoinKeyset) or ours != (
            keyset.id,
            keyset.script,
            keyset.account,
            keyset.origin,
            keyset.attestation_key,
        ):
            raise Unreadable(
                "wrong-keyset", f"the bundle's key-set {keyset.id} is not the one this signer holds"
            )
        check_network(network, record.network)

    def read(self, request: SignRequest) -> BitcoinUnsigned:
        """The request's PSBT, if all its inputs are ours. Raises Unreadable."""
        psbt, account = decoded(request), self._own.account
        own = []
        for number, (keys, spent) in enumerate(zip(psbt.input_keys, psbt.spent, strict=True)):
            place = self._own.place(keys)
            pubkey = account.pubkey(*place) if place is not None else b""
            if place is None or key_script(account.kind, pubkey) != spent.script:
                raise Unreadable(
                    "foreign-input", f"input {number} spends an output that this key-set can't sign for"
                )
            own.append((place, pubkey))
        return unsigned_of(psbt, own)

    def find(self, request: SignRequest, unsigned: BitcoinUnsigned, grounds: Grounds) -> Findings:
        """Objections to form, outputs and feerate."""
        return find(request, unsigned.psbt, self._own, grounds, self._record.network)
