"""What a holder has registered, and requests for a Safe of five owners, for tests of the offline signer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import coincurve

from chains.eth.address import checksummed, keccak256, raw_address
from chains.eth.safe import SafeMessage, SafeTx
from chains.eth.safe_files import SafeRequest, encode_request
from signers.airgap.registered import (
    KnownAddress,
    Registered,
    RegisteredNetwork,
    RegisteredOwner,
    RegisteredSafe,
    RegisteredToken,
)

ETHER = 10**18
CHAIN_ID = 31337
SAFE = keccak256(b"our safe")[-20:]
TOKEN = keccak256(b"usdx")[-20:]
WARM = keccak256(b"warm safe")[-20:]
CUSTOMER = keccak256(b"customer")[-20:]
MALLORY = keccak256(b"mallory")[-20:]
NOW = 1_800_000_000
LATER = NOW + 3 * 3600


class OwnerKey:
    """A holder's key as far as Safes go."""

    def __init__(self, number: int) -> None:
        self.private = coincurve.PrivateKey(keccak256(b"owner %d" % number))

    @property
    def evm_address(self) -> str:
        public = self.private.public_key.format(compressed=False)
        return checksummed(keccak256(public[1:])[-20:])

    def sign_ethereum(self, digest: bytes) -> bytes:
        raw = self.private.sign_recoverable(digest, hasher=None)
        return bytes(raw[:64]) + bytes([27 + raw[64]])


OWNERS = tuple(OwnerKey(number) for number in range(5))


def registered_safe(address: bytes = SAFE, chain_id: int = CHAIN_ID) -> RegisteredSafe:
    """A Safe 3-of-5 of our owners."""
    owners = tuple(
        RegisteredOwner(id=f"holder-{number}", organisation="house", address=key.evm_address)
        for number, key in enumerate(OWNERS)
    )
    return RegisteredSafe(
        id="cold-eth",
        chain="anvil",
        chain_id=chain_id,
        address=checksummed(address),
        owners=owners,
        threshold=3,
        tier="cold",
    )


def registered(safe: bytes = SAFE, token: bytes = TOKEN) -> Registered:
    """One Safe, one network, one token, and a name for another wallet of the house."""
    return Registered(
        safes=(registered_safe(safe),),
        networks=(RegisteredNetwork(chain="anvil", chain_id=CHAIN_ID, symbol="ETH", decimals=18),),
        tokens=(RegisteredToken(chain_id=CHAIN_ID, contract=checksummed(token), symbol="USDX", decimals=6),),
        known=(KnownAddress(chain_id=CHAIN_ID, address=checksummed(WARM), name="warm-eth (warm Safe)"),),
    )


def request(
    *, safe: bytes = SAFE, chain_id: int = CHAIN_ID, expires_at: int = LATER, note: str = "", **tx: Any
) -> SafeRequest:
    """A request to pay a customer 5 ether, unless the fields of `tx` say otherwise."""
    plain = SafeTx(to=CUSTOMER, value_wei=5 * ETHER, data=b"", nonce=7)
    return SafeRequest(SafeMessage(chain_id, safe, replace(plain, **tx)), expires_at, note)


def request_file(**fields: Any) -> bytes:
    """The same as the bytes of its file."""
    return encode_request(request(**fields))


def raw(text: str) -> bytes:
    """The 20 bytes of an address."""
    return raw_address(text)
