"""A small world around a signer of EVM key-sets: two networks, a token, contracts, and requests to pay."""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import coincurve
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from chains.eth.address import checksummed, keccak256, raw_address
from chains.eth.erc20 import transfer_calldata
from chains.eth.forwarder import flush_calldata, salt_of
from chains.eth.payout import Payout, payout_calldata
from chains.eth.tx import UnsignedTx, address_text_of_key
from policies.bundle import (
    AssetEntry,
    Bundle,
    Confirmations,
    EvmKeyset,
    EvmNetwork,
    GasCaps,
    KeysetEntry,
    TierCap,
)
from policies.intent import Evidence, Intent, Kind, Order
from policies.keys import SigningKey, sign_order
from signers.keys.keyset import KEY_PLACE, EvmKeysetRecord, GasPayerRecord, SafeOwnerRecord
from signers.ports import AttestRequest, SignRequest
from tests.fakes.signing import DAY, House, own_intent, payment_intent

R = TypeVar("R", EvmKeysetRecord, SafeOwnerRecord, GasPayerRecord)

EVM_CHAIN = "ethereum-devnet"
EVM_CHAIN_ID = 31337
EVM_KEYSET = "eth-hot"
OTHER_EVM_CHAIN = "polygon-devnet"
OTHER_EVM_CHAIN_ID = 31338
GWEI = 10**9
ETHER = 10**18


def named_address(name: str) -> str:
    """An address that a name stands for."""
    return checksummed(keccak256(name.encode())[12:])


EVM_DESTINATION = named_address("a customer's own wallet")
FACTORY = named_address("factory")
PAYOUT = named_address("payout")
USDX = named_address("usdx")
"""A plain token with 6 decimals."""
FEEX = named_address("feex")
"""A token that takes a fee on transfer."""
FORWARDER = keccak256(b"the forwarders' init code").hex()
GAS_CAPS = GasCaps(transfer=100_000, token=150_000, payout=3_000_000, sweep=6_000_000, execution=300_000)


@dataclass
class SoftEvmKeys(Generic[R]):
    """The key of a key-set, gas payer or Safe's owner without an HSM: as random as one, and with s in either half."""

    record: R
    attestation: SigningKey
    pubkey: bytes
    secret: ec.EllipticCurvePrivateKey = field(repr=False)

    @staticmethod
    def make(
        keyset: str = EVM_KEYSET, chain_id: int = EVM_CHAIN_ID, secret: bytes | None = None
    ) -> SoftEvmKeys[EvmKeysetRecord]:
        return SoftEvmKeys.of(EvmKeysetRecord, keyset, chain_id, secret)

    @staticmethod
    def of(kind: type[R], name: str, chain_id: int, secret: bytes | None = None) -> SoftEvmKeys[R]:
        """A key for a purpose; `secret` (32 bytes) or a random one."""
        number = int.from_bytes(secret or os.urandom(32), "big")
        key = ec.derive_private_key(number, ec.SECP256K1())
        pubkey = coincurve.PrivateKey.from_int(number).public_key.format()
        attestation = SigningKey.generate()
        record = kind(
            id=name,
            chain_id=chain_id,
            address=address_text_of_key(pubkey),
            attestation_key=attestation.public_hex,
        )
        return SoftEvmKeys(record, attestation, pubkey, key)

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        assert (branch, index) == KEY_PLACE
        return self.pubkey, self.signature(digest)

    def signature(self, digest: bytes) -> bytes:
        der = self.secret.sign(digest, ec.ECDSA(utils.Prehashed(SHA256())))
        return b"".join(part.to_bytes(32, "big") for part in utils.decode_dss_signature(der))

    def attest(self, digest: bytes) -> bytes:
        return base64.b64decode(self.attestation.sign_digest(digest))


@dataclass
class EvmWorld(House):
    """A bundle that names two EVM networks with a hot key-set each, their native assets and two tokens."""

    record: EvmKeysetRecord
    other: EvmKeysetRecord

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        """The bundle; `changes` are fields of the bundle, its first network (`network_...`), the key-set on it
        (`keyset_...`), or the cap of ETH (`cap_...`) or USDX (`usdx_...`)."""

        def named(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): v for name, v in changes.items() if name.startswith(prefix)}

        prefixes = ("network_", "keyset_", "cap_", "usdx_")
        plain = {k: v for k, v in changes.items() if not k.startswith(prefixes)}
        fields: dict[str, Any] = {
            "v": 1,
            "version": version,
            "issued_at": self.now - 10,
            "expires_at": self.now + 30 * DAY,
            "networks": (
                self.network_entry(**named("network_")),
                self.network_entry(chain=OTHER_EVM_CHAIN, chain_id=OTHER_EVM_CHAIN_ID, native_asset="XETH"),
            ),
            "assets": (
                self.asset_entry("ETH", EVM_CHAIN, 18, None),
                self.asset_entry("USDX", EVM_CHAIN, 6, USDX),
                self.asset_entry("FEEX", EVM_CHAIN, 18, FEEX, traits=("fee-on-transfer",)),
                self.asset_entry("XETH", OTHER_EVM_CHAIN, 18, None),
            ),
            "keysets": (
                self.keyset_entry(self.record, EVM_CHAIN, **named("keyset_")),
                self.keyset_entry(self.other, OTHER_EVM_CHAIN),
            ),
            "caps": (
                self.cap_entry("ETH", 2 * ETHER, 100 * ETHER, **named("cap_")),
                self.cap_entry("USDX", 5_000 * 10**6, 250_000 * 10**6, **named("usdx_")),
                self.cap_entry("FEEX", 5_000 * ETHER, 250_000 * ETHER),
                self.cap_entry("XETH", 2 * ETHER, 100 * ETHER),
            ),
            **self.people(),
        }
        return Bundle(**self.completed(fields | plain))

    def network_entry(self, **changes: Any) -> EvmNetwork:
        fields: dict[str, Any] = {
            "chain": EVM_CHAIN,
            "genesis": keccak256(b"genesis").hex(),
            "native_asset": "ETH",
            "settle_blocks": 1,
            "feerate_floor": GWEI // 10,
            "feerate_cap": 200 * GWEI,
            "fee_cap": str(ETHER // 5),
            "fee_window_cap": str(5 * ETHER),
            "fee_window_seconds": DAY,
            "chain_id": EVM_CHAIN_ID,
            "native_mode": "trace",
            "gas_caps": GAS_CAPS,
        }
        return EvmNetwork(**(fields | changes))

    def asset_entry(
        self, asset: str, chain: str, decimals: int, contract: str | None, **changes: Any
    ) -> AssetEntry:
        fields: dict[str, Any] = {
            "id": asset,
            "chain": chain,
            "decimals": decimals,
            "contract": contract,
            "minimum_deposit": "1",
            "withdrawal_fee": "0",
            "confirmations": (Confirmations(from_units="0", blocks=1),),
        }
        return AssetEntry(**(fields | changes))

    def keyset_entry(self, record: EvmKeysetRecord, chain: str = EVM_CHAIN, **changes: Any) -> KeysetEntry:
        fields: dict[str, Any] = {
            "id": record.id,
            "chain": chain,
            "tier": "hot",
            "attestation_key": record.attestation_key,
            "address": record.address,
            "factory": FACTORY,
            "forwarder": FORWARDER,
            "payout": PAYOUT,
        }
        return EvmKeyset(**(fields | changes))

    def cap_entry(self, asset: str, below: int, window: int, **changes: Any) -> TierCap:
        fields: dict[str, Any] = {
            "tier": "hot",
            "asset": asset,
            "payment_below": str(below),
            "window_cap": str(window),
            "window_seconds": DAY,
        }
        return TierCap(**(fields | changes))

    def order(self, units: int = ETHER // 10, **changes: Any) -> Order:
        fields: dict[str, Any] = {
            "v": 1,
            "id": str(uuid.uuid4()),
            "caller": "exchange",
            "customer": "alice",
            "chain": EVM_CHAIN,
            "asset": "ETH",
            "destination": EVM_DESTINATION,
            "amount": str(units),
            "fee_ceiling": str(ETHER // 50),
            "expires_at": self.now + 3600,
        }
        return Order(**(fields | changes))

    def intent(self, order: Order, /, **changes: Any) -> Intent:
        return payment_intent(self.record.id, order, **changes)

    def house_intent(self, kind: Kind, **changes: Any) -> Intent:
        """An intent of the house's own: a sweep, a filled nonce."""
        fields = {"chain": EVM_CHAIN, "asset": "ETH", "destination": self.record.address}
        return own_intent(self.record.id, kind, **(fields | changes))

    def fill(self, nonce: int = 0, **changes: Any) -> EvmDraft:
        """A transaction of nothing to oneself."""
        intents = [self.house_intent(Kind.NONCE_FILL)]
        to = raw_address(self.record.address)
        plain: dict[str, Any] = {"to": to, "value_wei": 0, "data": b"", "gas_limit": 21_000, "nonce": nonce}
        return EvmDraft([], intents=intents, **(plain | changes))

    def sweep(self, indexes: Sequence[int], tokens: Sequence[str] = (), **changes: Any) -> EvmDraft:
        """A flush of the forwarders with these indexes."""
        data = flush_calldata([salt_of(index) for index in indexes], [raw_address(t) for t in tokens])
        plain: dict[str, Any] = {
            "to": raw_address(FACTORY),
            "value_wei": 0,
            "data": data,
            "gas_limit": 500_000,
        }
        return EvmDraft([], intents=[self.house_intent(Kind.SWEEP)], **(plain | changes))

    def attestation(self, index: int, **changes: Any) -> AttestRequest:
        """The request to attest a forwarder for alice."""
        fields: dict[str, Any] = {
            "chain": EVM_CHAIN,
            "keyset": self.record.id,
            "customer": "alice",
            "asset": "ETH",
            "branch": 0,
            "index": index,
        }
        return AttestRequest(**(fields | changes))

    def request(self, draft: EvmDraft) -> SignRequest:
        """The request for a draft: intents, signed orders and transaction."""
        return SignRequest(
            chain=draft.chain,
            keyset=draft.keyset,
            intents=tuple(draft.intents or [self.intent(order) for order in draft.orders]),
            evidence=Evidence(orders=tuple(sign_order(order, self.caller) for order in draft.orders)),
            transaction=base64.b64encode(draft.raw or self.tx(draft).encode()).decode(),
            safe_nonce=draft.safe_nonce,
        )

    def tx(self, draft: EvmDraft) -> UnsignedTx:
        """The draft's transaction."""
        given = draft.to is not None and draft.value_wei is not None and draft.data is not None
        to, value, data = (b"", 0, b"") if given else _honest(draft.orders)
        return UnsignedTx(
            chain_id=draft.chain_id,
            nonce=draft.nonce,
            max_priority_fee_per_gas_wei=draft.priority_wei,
            max_fee_per_gas_wei=draft.max_fee_wei,
            gas_limit=draft.gas_limit,
            to=to if draft.to is None else draft.to,
            value_wei=value if draft.value_wei is None else draft.value_wei,
            data=data if draft.data is None else draft.data,
        )


def _honest(orders: Sequence[Order]) -> tuple[bytes, int, bytes]:
    """Destination, value and calldata that carry out orders of one asset."""
    first, contracts = orders[0], {"USDX": USDX, "FEEX": FEEX}
    if first.asset in contracts:
        data = transfer_calldata(raw_address(first.destination), first.units)
        return raw_address(contracts[first.asset]), 0, data
    if len(orders) == 1:
        return raw_address(first.destination), first.units, b""
    batch = [Payout(raw_address(order.destination), order.units) for order in orders]
    return raw_address(PAYOUT), sum(order.units for order in orders), payout_calldata(batch)


@dataclass
class EvmDraft:
    """A transaction to be asked for; the defaults are honest, tests change one thing at a time."""

    orders: list[Order]
    nonce: int = 0
    gas_limit: int = 60_000
    max_fee_wei: int = 20 * GWEI
    priority_wei: int = GWEI
    chain_id: int = EVM_CHAIN_ID
    chain: str = EVM_CHAIN
    keyset: str = EVM_KEYSET
    to: bytes | None = None
    value_wei: int | None = None
    data: bytes | None = None
    intents: list[Intent] = field(default_factory=list)
    raw: bytes | None = None
    """Instead of all that, the bytes."""
    safe_nonce: int | None = None
    """For an execution."""
