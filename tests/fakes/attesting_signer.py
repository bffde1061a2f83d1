"""A signer that attests addresses as the real daemon does, with keys in memory, and signs nothing."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from embit import bip32
from embit.networks import NETWORKS as EMBIT_NETWORKS

from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from policies.bundle import BitcoinKeyset, KeysetEntry
from policies.intent import Attestation
from policies.keys import SigningKey
from signers.ports import (
    AttestRequest,
    Reason,
    Refused,
    SignedAttestation,
    SignerStatus,
    SignerUnavailable,
    SignRequest,
    SignResponse,
)


@dataclass
class AttestingSigner:
    """One hot regtest key-set. `down` makes it unreachable, `lies` has it name another index's address, `says` adds to
    its status."""

    keyset_id: str = "hot-btc"
    chain: str = "bitcoin-regtest"
    down: bool = False
    lies: bool = False
    attested: int = 0
    says: dict[str, Any] = field(default_factory=dict)
    key: SigningKey = field(default_factory=SigningKey.generate)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _owners: dict[tuple[int, int], str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        root = bip32.HDKey.from_seed(
            b"a seed that guards nothing at all", version=EMBIT_NETWORKS["regtest"]["xprv"]
        )
        self._account = root.derive("m/84h/1h/0h").to_public()
        self._fingerprint = root.my_fingerprint.hex()
        self._keys = AccountKey.parse(self.account, NETWORKS["regtest"])

    @property
    def account(self) -> str:
        """The account's public key as the bundle has it."""
        return str(self._account.to_base58(version=EMBIT_NETWORKS["regtest"]["xpub"]))

    def entry(self) -> KeysetEntry:
        """The key-set's entry in a bundle."""
        return BitcoinKeyset(
            id=self.keyset_id,
            chain=self.chain,
            tier="hot",
            account=self.account,
            origin=f"{self._fingerprint}/84'/1'/0'",
            attestation_key=self.key.public_hex,
        )

    def status(self) -> SignerStatus:
        self._answer()
        return SignerStatus(bundle_version=1, keysets=(self.keyset_id,), signed=0, **self.says)

    def attest(self, request: AttestRequest) -> SignedAttestation:
        self._answer()
        with self._lock:
            self.attested += 1
            owner = self._owners.setdefault((request.branch, request.index), request.customer)
        if owner != request.customer:
            raise Refused((Reason("address-of-another", f"index {request.index} is another customer's"),))
        attestation = Attestation(
            v=1,
            chain=request.chain,
            keyset=request.keyset,
            customer=request.customer,
            asset=request.asset,
            path=f"m/84'/1'/0'/{request.branch}/{request.index}",
            address=self._keys.address(request.branch, request.index + (1 if self.lies else 0)),
        )
        return SignedAttestation(attestation=attestation, signature=self.key.sign(attestation))

    def sign(self, request: SignRequest) -> SignResponse:
        raise Refused((Reason("kind-not-supported", "this signer only attests"),))

    def _answer(self) -> None:
        if self.down:
            raise SignerUnavailable("down")
