"""The public record of a holder's key, for the quorum that writes the bundle (BIP129 in spirit). Holds no secret."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from chains.btc.multisig import Member
from chains.btc.network import NETWORKS
from chains.errors import InvalidValue
from chains.eth.address import is_checksummed
from policies.bundle.common import EvmAddress, Origin
from policies.canonical import Name, Seconds
from signers.airgap.keyfile import About
from signers.airgap.keys import HolderKey, bitcoin_path
from signers.airgap.registered import BitcoinNetworkName

RECORD_TYPE: Final = "strongroom-key-record"


class KeyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What others need to know of a key."""

    type: Literal["strongroom-key-record"] = RECORD_TYPE
    v: Literal[1] = 1
    name: Name
    organisation: Name
    network: BitcoinNetworkName
    origin: Origin
    """Master fingerprint and path of the account: m/48'/coin'/0'/2' (BIP48)."""
    xpub: Annotated[str, msgspec.Meta(max_length=120)]
    """Of that account: `xpub...` on main, `tpub...` elsewhere."""
    evm_address: EvmAddress
    """At m/44'/60'/0'/0/0."""
    made_at: Seconds

    def encode(self) -> bytes:
        """The record's file: JSON, a field a line."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def record_of(about: About, key: HolderKey) -> KeyRecord:
    """The record of a key, derived anew."""
    return KeyRecord(
        name=about.name,
        organisation=about.organisation,
        network=about.network,
        origin=key.origin_text,
        xpub=key.xpub,
        evm_address=key.evm_address,
        made_at=about.made_at,
    )


def read_record(raw: bytes) -> KeyRecord:
    """Read a record and check that its parts fit together.

    Raises:
        InvalidValue: malformed; an account of another network or path; an address without its checksum.
    """
    try:
        record = msgspec.json.decode(raw, type=KeyRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidValue(f"key record: {error}") from None
    network = NETWORKS[record.network]
    member = Member.parse(record.origin, record.xpub, network)
    if member.origin.path != bitcoin_path(network):
        raise InvalidValue(f"key record: {record.origin} is not the account m/48'/{network.coin_type}'/0'/2'")
    if not is_checksummed(record.evm_address):
        raise InvalidValue(f"key record: {record.evm_address} is not written with its checksum")
    return record
