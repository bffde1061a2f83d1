"""A ceremony of which all keys are known, for tests of records and proofs."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import msgspec

from policies.canonical import Document
from policies.keys import SigningKey
from signers.ceremony.facts import bitcoin_record, evm_record, facts_of
from signers.ceremony.plan import (
    NewBitcoinKeys,
    NewCosigner,
    NewEvmKey,
    NewKeys,
    NewOwner,
    NewPayer,
    NewWallet,
)
from signers.ceremony.record import (
    Backup,
    CeremonyRecord,
    EntropyUsed,
    HolderShare,
    Operator,
    OperatorSignature,
    Proof,
    ProvenCeremony,
    SignedCeremony,
    TokenDescription,
)
from signers.keys.keyset import KeysetRecord

ENTROPY = bytes(range(32))
POINT = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
WALLET = NewWallet(id="btc-hot", network="regtest")
COSIGNER = NewCosigner(id="btc-warm", network="main", organisation="house", member="a")
EVM_KEY = NewEvmKey(id="eth-hot", chain_id=1)
PAYER = NewPayer(id="eth-gas", chain_id=1)
OWNER = NewOwner(id="eth-warm", chain_id=1, organisation="house", member="b")


@dataclass
class Held:
    """A ceremony of which all keys are known."""

    new: NewKeys = WALLET
    environment: Any = "production"
    operators: dict[str, SigningKey] = field(
        default_factory=lambda: {name: SigningKey.generate() for name in ("olga", "otto")}
    )
    attestation: SigningKey = field(default_factory=SigningKey.generate)
    entropy: bytes = ENTROPY
    point: bytes = POINT

    @property
    def keyset(self) -> KeysetRecord:
        public = bytes.fromhex(self.attestation.public_hex)
        if isinstance(self.new, NewBitcoinKeys):
            return bitcoin_record(self.new, self.entropy, public)
        return evm_record(self.new, self.point, public)

    def record(self, **changes: Any) -> CeremonyRecord:
        keyset = self.keyset
        facts = facts_of(keyset, getattr(keyset, "account", self.point.hex()))
        token = TokenDescription(label="t", serial="1", model="m", firmware="f", library="l")
        first, second = (Operator(name=n, key=k.public_hex) for n, k in self.operators.items())
        shares = tuple(HolderShare(holder=f"h{i}", index=i, fingerprint="00" * 8) for i in (1, 2, 3))
        record = CeremonyRecord(
            v=1,
            ceremony=str(uuid.UUID(int=1)),
            environment=self.environment,
            tool="test",
            began_at=1,
            made_at=2,
            operators=(first, second),
            token=token,
            entropy=EntropyUsed(host_bytes=64, token_bytes=64, typed_characters=0, token_seeded=True),
            purpose=self.new.purpose,
            organisation=getattr(self.new, "organisation", None),
            member=getattr(self.new, "member", None),
            keyset=keyset,
            public_key=facts.public_key,
            fingerprints=facts.fingerprints,
            descriptor=facts.descriptor,
            addresses=facts.addresses,
            backup=Backup(scheme="slip39", identifier=7, threshold=2, shares=shares, wrapped=None),
            quorum=None,
        )
        return msgspec.structs.replace(record, **changes)

    def signatures(self, document: Document) -> tuple[OperatorSignature, OperatorSignature]:
        first, second = (
            OperatorSignature(operator=name, signature=key.sign(document))
            for name, key in self.operators.items()
        )
        return first, second

    def signed(self, **changes: Any) -> SignedCeremony:
        record = self.record(**changes)
        return SignedCeremony(
            record=record, signatures=self.signatures(record), attestation=self.attestation.sign(record)
        )

    def proven(self, signed: SignedCeremony | None = None, **changes: Any) -> ProvenCeremony:
        signed = signed or self.signed()
        proof = Proof(
            v=1,
            ceremony=signed.record.ceremony,
            keyset=signed.record.keyset.id,
            record=signed.record.digest_hex(),
            proven=True,
            proven_at=3,
            holders=("h1", "h2"),
            checked=("h1", "h2"),
            token=signed.record.token,
            compared=("public-key", "addresses", "signature", "attestation"),
        )
        proof = msgspec.structs.replace(proof, **changes)
        return ProvenCeremony(
            ceremony=signed,
            proof=proof,
            signatures=self.signatures(proof),
            attestation=self.attestation.sign(proof),
        )
