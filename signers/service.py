"""A signer: guard, journal and keys put together. The daemon serves it; tests call it directly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from chains.btc.hd import AccountKey, agreed_address
from chains.btc.tx import SIGHASH_ALL, SegwitDigests
from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle
from policies.canonical import encode_signature
from policies.intent import Attestation
from signers.book import Book
from signers.clock import SteadyClock
from signers.errors import WrongSignature
from signers.guard import Admission, Examined, Recalled, admit, check_keyset, examine, recall
from signers.journal import Journal
from signers.keyset import KeysetRecord
from signers.ports import (
    AttestRequest,
    InputSignature,
    Reason,
    Refused,
    SignedAttestation,
    SignerStatus,
    SignRequest,
    SignResponse,
)
from signers.trust import PinnedBundle

_LOW_S_LIMIT: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half of the order of secp256k1; above it a signature is not relayed (BIP146)."""
_DIGEST: Final = ec.ECDSA(utils.Prehashed(SHA256()))
_CURVE: Final = ec.SECP256K1()


class KeysetKeys(Protocol):
    """The keys of one key-set, wherever they are. What they return is verified before it is released."""

    @property
    def record(self) -> KeysetRecord:
        """The public half."""

    @property
    def account(self) -> AccountKey:
        """The account public key."""

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        """Public key (33 bytes) and low-s DER signature of 32 bytes; the same for the same digest."""

    def attest(self, digest: bytes) -> bytes:
        """Ed25519 signature (64 bytes) of 32 bytes by the attestation key."""


class SignerService:
    """Implements `signers.ports.Signer` in this process. Methods may be called from many threads at once."""

    def __init__(
        self, keysets: Mapping[str, KeysetKeys], trust: PinnedBundle, journal: Journal, clock: SteadyClock
    ) -> None:
        self._keysets, self._trust, self._journal, self._clock = dict(keysets), trust, journal, clock

    def status(self) -> SignerStatus:
        """Version of the bundle in force, key-sets, and how many transactions were signed."""
        return SignerStatus(
            bundle_version=self._trust.present.version,
            keysets=tuple(sorted(self._keysets)),
            signed=self._journal.write(lambda book: book.signed),
        )

    def sign(self, request: SignRequest) -> SignResponse:
        """Check everything, record it, then sign. The same transaction again gets the same signatures.

        Raises:
            Refused: with all reasons found; nothing was recorded.
            TransientError: nothing was released; ask again with the same request.
        """
        keys = self._keys(request.keyset)
        examined = self._admitted(request, keys)
        return _signed(examined, keys)

    def _admitted(self, request: SignRequest, keys: KeysetKeys) -> Examined | Recalled:
        while True:
            bundle, now = self._trust.present, self._clock.now()
            examination = examine(request, bundle, keys.record, keys.account, now=now)
            examined = examination.examined
            if examined is None:
                known = self._journal.write(lambda book: recall(request, keys.record, keys.account, book))
                if known is None:
                    raise Refused(examination.reasons)
                return known
            if self._journal.write(_Admit(examined, examination.reasons, now)):
                return examined
            # The bundle changed while we looked: look again with the new one.

    def attest(self, request: AttestRequest) -> SignedAttestation:
        """Derive the address by two implementations, remember whose it is, and sign both.

        Raises:
            Refused: another customer's, or not this signer's to attest.
            TransientError: nothing was released; ask again.
        """
        keys = self._keys(request.keyset)
        bundle, now = self._trust.present, self._clock.now()
        _may_attest(request, bundle, keys.record, now)
        address = agreed_address(keys.account, request.branch, request.index)

        def remember(book: Book) -> None:
            wanted = (request.customer, request.asset)
            owner = book.attested(request.keyset, request.branch, request.index)
            if owner is None:
                at = max(now, book.latest)
                book.record_attestation(request.keyset, request.branch, request.index, *wanted, now=at)
            elif owner != wanted:
                raise _refused(
                    "address-taken", f"{request.branch}/{request.index} was attested for another owner"
                )

        self._journal.write(remember)
        attestation = Attestation(
            v=1,
            chain=request.chain,
            keyset=request.keyset,
            customer=request.customer,
            asset=request.asset,
            path=f"m/{keys.record.path}/{request.branch}/{request.index}",
            address=address,
        )
        signature = keys.attest(attestation.digest())
        try:
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(keys.record.attestation_key))
            public.verify(signature, attestation.digest())
        except InvalidSignature:
            raise WrongSignature(
                "the token returned a wrong attestation signature; it was not released"
            ) from None
        return SignedAttestation(attestation=attestation, signature=encode_signature(signature))

    def _keys(self, keyset: str) -> KeysetKeys:
        keys = self._keysets.get(keyset)
        if keys is None:
            raise _refused("unknown-keyset", f"this signer has no key-set {keyset!r}")
        return keys


class _Admit:
    """Work for the journal's writer: True if the transaction may be signed, False if the bundle changed."""

    def __init__(self, examined: Examined, objections: tuple[Reason, ...], now: int) -> None:
        self._examined, self._objections, self._now = examined, objections, now

    def __call__(self, book: Book) -> bool:
        if book.bundle[0] != self._examined.bundle_version:
            return False
        now = max(self._now, book.latest)
        outcome = admit(self._examined, self._objections, book, now=now)
        if not isinstance(outcome, Admission):
            raise Refused(outcome)
        if outcome is Admission.NEW:
            book.record_transaction(self._examined, now=now)
        return True


def _refused(code: str, detail: str) -> Refused:
    return Refused((Reason(code, detail),))


def _may_attest(request: AttestRequest, bundle: Bundle, record: KeysetRecord, now: int) -> None:
    try:
        network, keyset = bundle.network(request.chain), bundle.keyset(request.keyset)
        asset = bundle.asset(request.asset)
    except InvalidValue as error:
        raise _refused("not-in-bundle", str(error)) from None
    try:
        check_keyset(keyset, network, record)
    except PermanentError as error:
        raise _refused("wrong-keyset", str(error)) from None
    if asset.chain != request.chain:
        raise _refused("wrong-asset", f"{asset.id} is on {asset.chain}, not on {request.chain}")
    if request.branch == 1 and request.customer is not None:
        raise _refused("change-branch", "addresses of branch 1 are the house's own")
    if now >= bundle.expires_at:
        raise _refused("bundle-expired", f"the bundle expired at {bundle.expires_at}; now is {now}")


def _signed(examined: Examined | Recalled, keys: KeysetKeys) -> SignResponse:
    """Sign every input, and verify each signature with another library before it is released."""
    digests = SegwitDigests(examined.psbt.tx)
    signatures = []
    inputs = zip(examined.inputs, examined.pubkeys, examined.psbt.spent, strict=True)
    for number, ((branch, index), pubkey, spent) in enumerate(inputs):
        digest = digests.p2wpkh(number, pubkey, spent.units)
        signer, der = keys.sign(branch, index, digest)
        if signer != pubkey or not verifies(pubkey, digest, der):
            raise WrongSignature(f"the signature for input {number} does not verify; it was not released")
        signatures.append(
            InputSignature(index=number, pubkey=pubkey.hex(), signature=(der + bytes([SIGHASH_ALL])).hex())
        )
    return SignResponse(signatures=tuple(signatures))


def verifies(pubkey: bytes, digest: bytes, der: bytes) -> bool:
    """Whether `der` is a low-s DER signature of a 32-byte digest by a 33-byte key, as OpenSSL sees it."""
    try:
        r, s = utils.decode_dss_signature(der)
        if s > _LOW_S_LIMIT or utils.encode_dss_signature(r, s) != der:
            return False
        ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, pubkey).verify(der, digest, _DIGEST)
    except (InvalidSignature, ValueError):
        return False
    return True
