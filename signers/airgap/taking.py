"""The verbs `register` and `verify-address`: what a holder believes in, and whether an address is of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec

from chains.btc.address import parse_address
from chains.errors import InvalidAddress, InvalidValue
from policies.bundle import TrustRoot, read_bundle
from policies.bundle.root import read_root, root_fingerprint, root_lines
from signers.airgap.btc_wallets import own_place
from signers.airgap.errors import Declined
from signers.airgap.opening import Opened, opened
from signers.airgap.registered import Registered
from signers.airgap.registering import (
    Wallet,
    of_bundle,
    of_descriptor,
    wallet_names,
    wallets_to_confirm,
)
from signers.airgap.store import Home, Kept
from signers.airgap.terminal import Screen

REACH: Final = 1_000
"""Places of each branch that `verify-address` looks at, unless told otherwise."""
TRIES: Final = 3
"""To type the end of an address as another holder has read it."""


def register(
    home: Home, screen: Screen, *, path: Path, root: Path | None, name: str | None, wanted: str | None
) -> None:
    """Take in a signed bundle, or a bare descriptor, once the holder has compared it with others'.

    Args:
        home: where the key is.
        screen: where it is shown and asked.
        path: of the signed bundle, or of a text file with a descriptor.
        root: the quorum to pin, the first time that a bundle is taken in.
        name: of the wallet, for a descriptor.
        wanted: which key; None: the only one.

    Raises:
        InvalidValue: malformed, or not of this key.
        UntrustedBundle: not signed by the pinned quorum, older than before, or expired.
        Declined: the holder read something else elsewhere. Nothing was registered.
        DerivationDisagreement: two implementations derive different addresses.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}") from None
    with opened(home, wanted, screen) as key:
        before = key.kept
        if raw.lstrip().startswith(b"{"):
            kept = _bundle(raw, root, key, screen)
        else:
            if name is None:
                raise InvalidValue("a descriptor says no name: choose one with --name")
            found = of_descriptor(_text(raw), name, key.key, before.registered)
            kept = Kept(root=before.root, registered=found)
        _confirm(kept.registered, before.registered, key, screen)
        home.keep(key.name, msgspec.structs.replace(kept, past=before.past), key.entropy)
    screen.show(["", "Registered. What is signed from now on is judged by it."])


def verify_address(home: Home, screen: Screen, *, text: str, reach: int, wanted: str | None) -> bool:
    """Say whether an address is of a registered wallet, and at which place; returns it too.

    Raises:
        InvalidValue: no address of the key's network or of Ethereum.
        DerivationDisagreement: two implementations derive different addresses.
    """
    with opened(home, wanted, screen) as key:
        registered = key.kept.registered
        if text[:2].lower() == "0x":
            words = _evm_words(text, registered, key)
        else:
            address = parse_address(text.strip(), key.key.network, "bitcoin")
            place = own_place(registered, key.key, address.script, reach)
            words = None
            if place is not None:
                wallet, branch, index = place
                kind = "change" if branch else "receiving"
                words = f"{kind} address {branch}/{index} of {wallet}, derived again here by two programs"
    if words is None:
        screen.show([f"NOT YOURS, as far as {reach} places of each branch: {text}"])
        return False
    screen.show([f"YOURS: {text}", f"  {words}"])
    return True


def _bundle(raw: bytes, root: Path | None, key: Opened, screen: Screen) -> Kept:
    pinned = _root(root, key.kept.root, screen)
    bundle = read_bundle(raw, pinned, now=int(time.time()))
    # From now on nothing older is taken in.
    rises = msgspec.structs.replace(pinned, minimum_version=max(pinned.minimum_version, bundle.version))
    screen.show(["", f"Bundle version {bundle.version}: the quorum's signatures are right."])
    found = of_bundle(bundle, key.key)
    bare = tuple(vault for vault in key.kept.registered.vaults if vault.caps is None)
    taken = {vault.id for vault in found.vaults}
    kept = tuple(vault for vault in bare if vault.id not in taken)
    return Kept(root=rises, registered=msgspec.structs.replace(found, vaults=(*found.vaults, *kept)))


def _root(path: Path | None, pinned: TrustRoot | None, screen: Screen) -> TrustRoot:
    """The pinned quorum; the first time, the one that the holder has compared."""
    if path is None:
        if pinned is None:
            raise InvalidValue("no quorum is pinned yet: give its file with --root, the first time")
        return pinned
    try:
        given = read_root(path.read_bytes())
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}") from None
    if pinned is not None:
        if root_fingerprint(given) != root_fingerprint(pinned):
            raise InvalidValue(
                "another quorum is pinned already. If it was replaced, begin in a new folder (--home)"
            )
        return pinned
    screen.show(["", *root_lines(given)])
    expected = root_fingerprint(given).replace(" ", "")
    typed = (
        screen.ask("Its fingerprint, as an officer or the ceremony's paper says it:").replace(" ", "").lower()
    )
    if typed != expected:
        raise Declined("the fingerprints differ. Nothing was registered")
    return given


def _confirm(registered: Registered, before: Registered, key: Opened, screen: Screen) -> None:
    for wallet in wallets_to_confirm(registered, before, key.key):
        screen.show(["", *wallet.lines, ""])
        _compare(wallet, screen)
    for gone in sorted(wallet_names(before) - wallet_names(registered)):
        screen.show([f"! {gone} is not in this bundle any more: nothing of it will be signed"])
    for token in registered.tokens:
        if token not in before.tokens:
            screen.show(
                [f"token {token.symbol}: {token.contract}, {token.decimals} decimals, chain {token.chain_id}"]
            )


def _compare(wallet: Wallet, screen: Screen) -> None:
    """Who mistypes is asked again, as it was a long way here. Raises Declined: it is another wallet elsewhere."""
    for left in reversed(range(TRIES)):
        if screen.ask(wallet.question).replace(" ", "").lower() == wallet.answer.lower():
            return
        if left:
            screen.show(["That is not what is written above. If it is what you were told, stop (Ctrl-C)."])
    raise Declined(f"{wallet.id}: that is not what is written here. Nothing was registered")


def _evm_words(text: str, registered: Registered, key: Opened) -> str | None:
    from chains.eth.address import parse_address as parse_evm

    address = parse_evm(text.strip(), "ethereum").text
    if address == key.key.evm_address:
        return "your own key, an owner of Safes. It should hold no money itself"
    for safe in registered.safes:
        if safe.address == address:
            return f"Safe {safe.id} on {safe.chain} (chain id {safe.chain_id} only)"
    named = [entry.name for entry in registered.known if entry.address == address]
    return named[0] if named else None


def _text(raw: bytes) -> str:
    try:
        return raw.decode("ascii").strip()
    except UnicodeDecodeError:
        raise InvalidAddress("neither a signed bundle nor a descriptor") from None
