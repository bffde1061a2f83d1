"""Putting signatures into a transaction, each verified before it is put in."""

from __future__ import annotations

from collections.abc import Iterable

import coincurve
from coincurve.ecdsa import cdata_to_der, der_to_cdata

from chains.btc.multisig_script import MultisigScript
from chains.btc.psbt.model import InputSignature, ParsedPsbt
from chains.btc.script import classify, p2tr_script, p2wpkh_script, taproot_output_key
from chains.btc.tx import SIGHASH_ALL, SegwitDigests, TaprootDigests, with_witnesses
from chains.errors import InvalidValue, PermanentError

SCHNORR_BYTES = 64


class InvalidSignature(PermanentError):
    """A signature that doesn't verify, or isn't in the one form we release."""


def finalize(psbt: ParsedPsbt, signatures: Iterable[InputSignature]) -> bytes:
    """The signed transaction's bytes. Every signature is verified before it is put in.

    P2WPKH and P2TR inputs take exactly one signature, P2WSH multisig inputs exactly as many as their threshold.

    Raises:
        InvalidSignature: an input with too few or too many signatures; a key that the spent script doesn't name;
            a signature that is high-s, not DER, not of BIP340, or doesn't verify against the digest.
    """
    given: dict[int, dict[bytes, InputSignature]] = {index: {} for index in range(len(psbt.spent))}
    for item in signatures:
        if item.index not in given or item.pubkey in given[item.index]:
            raise InvalidSignature(f"input {item.index}: no such input, or signed twice by one key")
        given[item.index][item.pubkey] = item
    segwit, taproot = SegwitDigests(psbt.tx), TaprootDigests(psbt.tx, psbt.spent)
    stacks = []
    for index, items in given.items():
        try:
            match classify(psbt.spent[index].script):
                case "p2wsh":
                    stacks.append(_multisig(psbt, index, items, segwit))
                case "p2tr":
                    stacks.append(_taproot(psbt, _only(index, items), taproot))
                case _:
                    stacks.append(_key_hash(psbt, _only(index, items), segwit))
        except InvalidValue as error:
            raise InvalidSignature(f"input {index}: {error}") from error
    return with_witnesses(psbt.tx, stacks).serialize()


def check_multisig_signatures(psbt: ParsedPsbt, signatures: Iterable[InputSignature]) -> None:
    """Check signatures of P2WSH multisig inputs, however many there are of each.

    Raises:
        InvalidSignature: no such input, one that is no multisig, a key that its script doesn't have, or as in
            `finalize`.
    """
    digests = SegwitDigests(psbt.tx)
    for item in signatures:
        raw = psbt.input_scripts[item.index] if 0 <= item.index < len(psbt.spent) else None
        if raw is None:
            raise InvalidSignature(f"input {item.index}: there is none, or it is no multisig")
        try:
            known = MultisigScript.parse(raw).pubkeys
        except InvalidValue as error:
            raise InvalidSignature(f"input {item.index}: {error}") from error
        if item.pubkey not in known:
            raise InvalidSignature(f"input {item.index}: its script has no key {item.pubkey.hex()}")
        check_ecdsa(item, digests.p2wsh(item.index, raw, psbt.spent[item.index].units))


def check_ecdsa(item: InputSignature, digest: bytes) -> None:
    """Check one ECDSA signature of an input against its digest of sighash type ALL.

    Raises:
        InvalidSignature: it does not verify, or is not low-s DER with ALL.
    """
    der, sighash = item.signature[:-1], item.signature[-1:]
    try:
        canonical = cdata_to_der(der_to_cdata(der)) == der and sighash == bytes([SIGHASH_ALL])
        # libsecp256k1 verifies low-s signatures only.
        valid = coincurve.PublicKey(item.pubkey).verify(der, digest, hasher=None)
    except ValueError as error:
        raise InvalidSignature(f"input {item.index}: {error}") from error
    if not canonical or not valid:
        raise InvalidSignature(
            f"input {item.index}: the signature doesn't verify, or isn't low-s DER with ALL"
        )


def _only(index: int, items: dict[bytes, InputSignature]) -> InputSignature:
    if len(items) != 1:
        raise InvalidSignature(f"input {index}: {len(items)} signatures, expected one")
    return next(iter(items.values()))


def _key_hash(psbt: ParsedPsbt, item: InputSignature, digests: SegwitDigests) -> tuple[bytes, ...]:
    output = psbt.spent[item.index]
    if p2wpkh_script(item.pubkey) != output.script:
        raise InvalidSignature(f"input {item.index}: the key is not the one its script pays to")
    check_ecdsa(item, digests.p2wpkh(item.index, item.pubkey, output.units))
    return (item.signature, item.pubkey)


def _taproot(psbt: ParsedPsbt, item: InputSignature, digests: TaprootDigests) -> tuple[bytes, ...]:
    if p2tr_script(item.pubkey) != psbt.spent[item.index].script:
        raise InvalidSignature(f"input {item.index}: the key is not the one its script pays to")
    key = coincurve.PublicKeyXOnly(taproot_output_key(item.pubkey))
    if len(item.signature) != SCHNORR_BYTES or not key.verify(item.signature, digests.key_path(item.index)):
        raise InvalidSignature(f"input {item.index}: the signature doesn't verify, or isn't 64 bytes")
    return (item.signature,)


def _multisig(
    psbt: ParsedPsbt, index: int, items: dict[bytes, InputSignature], digests: SegwitDigests
) -> tuple[bytes, ...]:
    raw = psbt.input_scripts[index]
    if raw is None:
        raise InvalidSignature(f"input {index}: the PSBT has no witness script")
    script = MultisigScript.parse(raw)
    if len(items) != script.threshold or not items.keys() <= set(script.pubkeys):
        raise InvalidSignature(f"input {index}: expected {script.threshold} signatures by keys of its script")
    digest = digests.p2wsh(index, raw, psbt.spent[index].units)
    for item in items.values():
        check_ecdsa(item, digest)
    # OP_CHECKMULTISIG takes them in the order of the keys, after one item that it drops (BIP147: empty).
    ordered = [items[pubkey].signature for pubkey in script.pubkeys if pubkey in items]
    return (b"", *ordered, raw)
