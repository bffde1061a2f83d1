"""The guard's part for one cosigner of a Bitcoin vault: `wsh(sortedmulti(...))` coins. Pure.

The signer holds one key of several. It believes the bundle about the others, and derives everything from them again:
the descriptor, each input's script and each change output.
"""

from __future__ import annotations

from typing import Final

from chains.btc.hd import BranchKeys, Origin
from chains.btc.multisig_script import MultisigScript
from chains.btc.psbt import ParsedPsbt
from chains.errors import DerivationDisagreement, InvalidValue
from policies.bundle import BitcoinVault, NetworkEntry, WalletEntry
from signers.guard.btc_scripts import Place, vault_scripts
from signers.guard.btc_shape import KINDS, BitcoinUnsigned, check_network, decoded, find, unsigned_of
from signers.guard.examined import Findings, Grounds, Unreadable
from signers.keys.keyset import BitcoinCosignerRecord
from signers.ports import Reason, SignRequest


class BitcoinVaultRules:
    """A vault's `FamilyRules`, as one of its cosigners applies them.

    Args:
        record: the signer's own record of its part.
        account: its account public key.
    """

    kinds: Final = KINDS

    def __init__(self, record: BitcoinCosignerRecord, account: BranchKeys) -> None:
        self._record, self._account, self._origin = record, account, Origin.parse(record.origin)

    def check_keyset(self, keyset: WalletEntry, network: NetworkEntry) -> None:
        """Check that these keys are one cosigner of the bundle's vault, and its descriptor the cosigners' own.

        Raises:
            Unreadable: with a `reason` that says what differs.
        """
        record = self._record
        if not isinstance(keyset, BitcoinVault) or keyset.id != record.id:
            raise Unreadable("wrong-keyset", f"{keyset.id} is not the vault that this signer has keys of")
        check_network(network, record.network)
        ours = [c for c in keyset.cosigners if (c.account, c.origin) == (record.account, record.origin)]
        if len(ours) != 1:
            raise Unreadable("wrong-keyset", f"this signer's keys are no cosigner of vault {keyset.id}")
        try:
            vault_scripts(keyset, record.network)
        except (InvalidValue, DerivationDisagreement) as error:
            raise Unreadable("wrong-descriptor", str(error)) from None

    def read(self, request: SignRequest) -> BitcoinUnsigned:
        """The request's PSBT, if a key of ours is in the script of each input. Raises Unreadable."""
        psbt = decoded(request)
        return unsigned_of(psbt, [self._own_key(psbt, number) for number in range(len(psbt.spent))])

    def find(self, request: SignRequest, unsigned: BitcoinUnsigned, grounds: Grounds) -> Findings:
        """Objections to inputs, form, outputs and feerate."""
        vault, psbt = grounds.wallet, unsigned.psbt
        assert isinstance(vault, BitcoinVault)  # check_keyset has said so
        own = vault_scripts(vault, self._record.network)
        findings = find(request, psbt, own, grounds, self._record.network)
        for number, (keys, spent) in enumerate(zip(psbt.input_keys, psbt.spent, strict=True)):
            place = own.place(keys)
            if place != unsigned.places[number] or own.script(*place) != spent.script:
                findings.reasons.append(
                    Reason("foreign-input", f"input {number} spends an output that is not the vault's")
                )
        return findings

    def _own_key(self, psbt: ParsedPsbt, number: int) -> tuple[Place, bytes]:
        """Place and public key of ours in the script that an input spends. Raises Unreadable."""
        script = psbt.input_scripts[number]
        places = {
            self._origin.place(key.path)
            for key in psbt.input_keys[number]
            if key.fingerprint == self._origin.fingerprint
        }
        try:
            keys = MultisigScript.parse(script or b"").pubkeys
        except InvalidValue:
            keys = ()
        for place in sorted(place for place in places if place is not None):
            pubkey = self._account.pubkey(*place)
            if pubkey in keys:
                return place, pubkey
        raise Unreadable("foreign-input", f"input {number} spends an output that these keys can't sign for")
