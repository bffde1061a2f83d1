"""What a Bitcoin payment would do, in plain words, and every reason not to sign it. Pure.

Nothing that the file says about itself is believed: amounts come from the previous transactions, which hash to what is
spent; whatever is called ours is derived again from the registered descriptor by two implementations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from chains.btc.address import address_text
from chains.btc.hd import HARDENED
from chains.btc.multisig import multisig_input_wu
from chains.btc.network import BtcNetwork
from chains.btc.psbt import InputSignature, KeyOrigin, ParsedPsbt
from chains.btc.script import INPUT_BASE_WU, MAX_STANDARD_TX_WU, WITNESS_SCALE, dust_limit_sats
from chains.btc.tx import SIGHASH_ALL
from chains.errors import InvalidValue
from signers.airgap.btc_file import PaymentFile
from signers.airgap.btc_wallets import Place, derives, multisig_of, own_member, place_of
from signers.airgap.errors import Refused
from signers.airgap.figures import big, btc, feerate, grouped, percent
from signers.airgap.keys import HolderKey
from signers.airgap.registered import (
    DEFAULT_FEE_PERCENT,
    Registered,
    RegisteredVault,
)

CHANGE_REACH: Final = 1_000
"""Change further beyond the inputs' places than this is said; standard wallets would have to be told to look there."""
FURTHEST_CHANGE: Final = 100_000
"""Change at a place beyond is refused: it would be ours, and hard to find."""
WARN_FEE_PERCENT: Final = 1
LOWEST_FEERATE_SAT_PER_KVB: Final = 1_000
"""Nodes do not pass on what pays less (`-minrelaytxfee`)."""
MOST_BIG_PAYMENTS: Final = 3
"""So many payments have each amount in large figures; of more, their sum has."""
VERSIONS: Final = (1, 2)
FIRST_TIME_LOCK: Final = 500_000_000
"""From here on a locktime is a time and no block (consensus)."""
SEQUENCES: Final = (0xFFFF_FFFD, 0xFFFF_FFFE, 0xFFFF_FFFF)
"""Replaceable (BIP125), or not; any other one is a relative lock (BIP68), or means nothing that is known."""


@dataclass(frozen=True, slots=True)
class BtcReview:
    """A payment that was looked at."""

    lines: tuple[str, ...]
    """What the holder must read."""
    warnings: tuple[str, ...]
    objections: tuple[str, ...]
    """Reasons to refuse; empty: it may be signed if the holder wants to."""
    leaves_sats: int
    """Sum of the outputs that are not the vault's own; without the fee."""
    pays: tuple[str, ...]
    """Amount and address of each payment to somebody else than a wallet of the bundle."""
    places: tuple[Place, ...]
    """Of each input; empty where there are objections."""
    signed: bool
    """Whether the holder's own signatures are in it already, all of them."""


@dataclass(slots=True)
class _Look:
    """What was found so far."""

    file: PaymentFile
    vault: RegisteredVault | None
    network: BtcNetwork
    places: list[Place] = field(default_factory=list)
    payments: list[tuple[int, bytes, str]] = field(default_factory=list)
    """Units, script, and where it goes if that is known."""
    change: list[tuple[int, bytes, Place]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)


def review_payment(file: PaymentFile, registered: Registered, key: HolderKey) -> BtcReview:
    """Look at a payment with what is registered for a key.

    Raises:
        DerivationDisagreement: two implementations derive different addresses.
    """
    look = _Look(file, _vault_of(file, registered, key), key.network)
    if look.vault is None:
        look.objections.append(_why_no_vault(file, registered, key))
    else:
        _look_at_inputs(look, look.vault)
        _look_at_outputs(look, look.vault, registered)
        _look_at_fee(look, look.vault)
    _look_at_form(look)
    lines = _lines(look, key)
    return BtcReview(
        tuple(lines),
        tuple(look.warnings),
        tuple(look.objections),
        sum(units for units, _, _ in look.payments),
        tuple(
            f"{btc(units)} BTC to {_address(script, look.network)}"
            for units, script, name in look.payments
            if not name
        ),
        tuple(look.places) if not look.objections else (),
        not look.objections and all(_own(look, key, at) for at in range(len(look.places))),
    )


def sign_payment(file: PaymentFile, review: BtcReview, key: HolderKey) -> tuple[InputSignature, ...]:
    """The holder's signatures for every input of a payment that nothing speaks against.

    Raises:
        Refused: something does.
        WrongSignature: the key's library fails.
    """
    if review.objections or len(review.places) != len(file.digests):
        raise Refused(review.objections or ("nothing to sign",))
    signatures = []
    for index, (place, digest) in enumerate(zip(review.places, file.digests, strict=True)):
        pubkey, der = key.sign_bitcoin(*place, digest)
        signatures.append(InputSignature(index, pubkey, der + bytes([SIGHASH_ALL])))
    return tuple(signatures)


def _vault_of(file: PaymentFile, registered: Registered, key: HolderKey) -> RegisteredVault | None:
    """The registered vault that an input says it is of."""
    for vault in registered.vaults:
        if vault.network == key.network.name and own_member(vault, key) is not None:
            multisig_of(vault)
            if any(keys and place_of(vault.members, keys) is not None for keys in file.psbt.input_keys):
                return vault
    return None


def _why_no_vault(file: PaymentFile, registered: Registered, key: HolderKey) -> str:
    keys = [key for keys in file.psbt.input_keys for key in keys]
    if not keys:
        return "It does not say which keys its coins belong to (BIP32 derivations are missing)."
    coins = {origin.path[1] - HARDENED for origin in keys if len(origin.path) > 1}
    if coins and coins != {key.network.coin_type}:
        return f"WRONG NETWORK: its coins are not of the {key.network.name} network, which your key is for."
    if not registered.vaults:
        return "No wallet is registered on this machine yet: register the signed bundle first."
    return "Its coins are of no wallet that you have registered on this machine."


def _look_at_inputs(look: _Look, vault: RegisteredVault) -> None:
    psbt = look.file.psbt
    for number, (keys, spent) in enumerate(zip(psbt.input_keys, psbt.spent, strict=True), 1):
        place = place_of(vault.members, keys)
        if place is None or not derives(vault, place, spent.script, keys):
            look.objections.append(
                f"Input {number} of {len(psbt.spent)} spends a coin that is not {vault.id}'s: it mixes wallets."
            )
        elif not look.file.digests[number - 1]:
            look.objections.append(f"Input {number} does not show its script.")
        else:
            look.places.append(place)


def _look_at_outputs(look: _Look, vault: RegisteredVault, registered: Registered) -> None:
    psbt = look.file.psbt
    reach = max((index for _, index in look.places), default=0) + CHANGE_REACH
    for number, (output, keys) in enumerate(zip(psbt.tx.outputs, psbt.output_keys, strict=True), 1):
        place = place_of(vault.members, keys) if keys else None
        if place is not None and derives(vault, place, output.script, keys):
            look.change.append((output.units, output.script, place))
            if place[1] > FURTHEST_CHANGE:
                look.objections.append(
                    f"Output {number} is yours, but at place {place[1]}, where no wallet looks."
                )
            elif place[1] > reach:
                look.warnings.append(f"Output {number} is yours, but far off: place {place[1]}.")
            continue
        name = _other_wallet(keys, output.script, registered, look.network)
        if keys and name is None:
            look.objections.append(
                f"FOREIGN CHANGE: output {number} says it belongs to keys, but is of no wallet you know."
            )
        look.payments.append((output.units, output.script, name or ""))
        _look_at_payment(look, number, output.units, output.script)


def _look_at_payment(look: _Look, number: int, units: int, script: bytes) -> None:
    try:
        address_text(script, look.network)
    except InvalidValue:
        look.objections.append(f"Output {number} pays to no address: a script that nobody knows.")
    if units < dust_limit_sats(script):
        look.warnings.append(f"Output {number} is too small to be worth spending: {units} sats.")


def _other_wallet(
    keys: tuple[KeyOrigin, ...], script: bytes, registered: Registered, network: BtcNetwork
) -> str | None:
    """The name of another wallet of the bundle that an output goes to, derived again; None: of none."""
    for wallet in registered.wallets:
        place = place_of(wallet.members, keys) if keys and wallet.network == network.name else None
        if place is not None and derives(wallet, place, script, keys):
            return f"your {wallet.tier} wallet {wallet.id}, {_place_words(place)}"
    return None


def _look_at_fee(look: _Look, vault: RegisteredVault) -> None:
    psbt = look.file.psbt
    fee, size = psbt.fee_sats, _size_vb(look, vault)
    base = sum(units for units, _, _ in look.payments) or sum(spent.units for spent in psbt.spent)
    if vault.caps is None:
        if fee * 100 > base * DEFAULT_FEE_PERCENT:
            look.objections.append(
                f"FEE TOO HIGH: {grouped(fee)} sats are {percent(fee, base)}; at most {DEFAULT_FEE_PERCENT} %."
            )
    elif fee > vault.caps.fee_cap_sats:
        look.objections.append(
            f"FEE TOO HIGH: {grouped(fee)} sats; the bundle allows {grouped(vault.caps.fee_cap_sats)}."
        )
    elif fee * 1000 > vault.caps.feerate_cap_sat_per_kvb * size:
        allowed = feerate(vault.caps.feerate_cap_sat_per_kvb, 1000)
        look.objections.append(f"FEE TOO HIGH: {feerate(fee, size)}; the bundle allows {allowed}.")
    if fee * 100 > base * WARN_FEE_PERCENT:
        look.warnings.append(f"The fee is {percent(fee, base)} of the amount.")
    if fee * 1000 < LOWEST_FEERATE_SAT_PER_KVB * size:
        look.warnings.append(f"The fee is so low ({feerate(fee, size)}) that nodes may not pass it on.")


def _look_at_form(look: _Look) -> None:
    tx = look.file.psbt.tx
    if tx.version not in VERSIONS:
        look.objections.append(f"Transaction version {tx.version}: only 1 and 2 are signed.")
    if tx.locktime >= FIRST_TIME_LOCK:
        look.objections.append("It is locked until a time; such payments are not signed.")
    elif tx.locktime:
        look.warnings.append(
            f"Not valid before block {grouped(tx.locktime)}. If that is far in the future, do not sign."
        )
    if any(txin.sequence not in SEQUENCES for txin in tx.inputs):
        look.objections.append(
            "An input is locked for a time after its coin's block, or its sequence is odd."
        )
    if tx.weight > MAX_STANDARD_TX_WU:
        look.objections.append("It is larger than nodes pass on (400,000 weight units).")


def _size_vb(look: _Look, vault: RegisteredVault) -> int:
    """Virtual bytes of the finished transaction, at most."""
    tx = look.file.psbt.tx
    witness = multisig_input_wu(multisig_of(vault).witness_script(0, 0)) - INPUT_BASE_WU
    weight = len(tx.serialize()) * WITNESS_SCALE + 2 + len(tx.inputs) * witness
    return -(-weight // WITNESS_SCALE)


def _own(look: _Look, key: HolderKey, index: int) -> bool:
    return key.keys.pubkey(*look.places[index]) in look.file.signed_by[index]


def _lines(look: _Look, key: HolderKey) -> list[str]:
    psbt, vault = look.file.psbt, look.vault
    if vault is None:
        return [f"BITCOIN PAYMENT of an unknown wallet, {look.network.name} network"]
    total = sum(units for units, _, _ in look.payments)
    lines = [
        f"BITCOIN PAYMENT from {vault.id} ({vault.threshold} of {len(vault.members)}), {vault.network} network",
        _signers_line(look, vault),
        "",
    ]
    for number, (units, script, name) in enumerate(look.payments, 1):
        lines.append(f"PAYS, {number} of {len(look.payments)}:  {btc(units)} BTC = {grouped(units)} sats")
        lines += _big(units) if len(look.payments) <= MOST_BIG_PAYMENTS else []
        lines.append(f"  to  {_address(script, look.network)}")
        lines += [f"      {name}, derived again here"] if name else []
        lines.append("")
    if not look.payments:
        lines += ["PAYS NOBODY: everything but the fee comes back to the wallet.", ""]
    for units, script, place in look.change:
        lines.append(f"COMES BACK:  {btc(units)} BTC = {grouped(units)} sats")
        lines.append(f"  to  {_address(script, look.network)}")
        lines += [f"      yours: derived again here as {_place_words(place)} of {vault.id}", ""]
    lines += ["IN ALL:", *_big(total)] if len(look.payments) > MOST_BIG_PAYMENTS else []
    size = _size_vb(look, vault)
    base = total or sum(spent.units for spent in psbt.spent)
    lines += [
        f"FEE  {grouped(psbt.fee_sats)} sats = {percent(psbt.fee_sats, base)}, {feerate(psbt.fee_sats, size)}",
        f"PAID IN ALL  {btc(total)} BTC; with the fee {btc(total + psbt.fee_sats)} BTC leave, from {_coins(psbt)}",
    ]
    return lines


def _big(units: int) -> list[str]:
    return [f"    {row}" for row in big(btc(units))]


def _coins(psbt: ParsedPsbt) -> str:
    return "1 coin" if len(psbt.spent) == 1 else f"{len(psbt.spent)} coins"


def _signers_line(look: _Look, vault: RegisteredVault) -> str:
    """Who has signed the first input."""
    if len(look.places) != len(look.file.signed_by):
        return ""
    names = []
    multisig = multisig_of(vault)
    for registered, member in zip(vault.members, multisig.members, strict=True):
        if member.keys.pubkey(*look.places[0]) in look.file.signed_by[0]:
            names.append(registered.id)
    told = f" ({', '.join(names)})" if names else ""
    return f"Signatures so far: {len(names)} of {vault.threshold}{told}"


def _address(script: bytes, network: BtcNetwork) -> str:
    try:
        return address_text(script, network)
    except InvalidValue:
        return f"no address: script {script[:36].hex()}"


def _place_words(place: Place) -> str:
    return f"{'change' if place[0] else 'receiving'} address {place[0]}/{place[1]}"
