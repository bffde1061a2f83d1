"""A small world around a signer: a quorum, a caller, coins of a key-set, and requests to pay from them."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from chains.btc.address import parse_address
from chains.btc.hd import AccountKey, Origin
from chains.btc.network import NETWORKS
from chains.btc.psbt import PsbtInput, build_psbt, parse_psbt
from chains.btc.script import KeyScript, p2wpkh_script_from_hash
from chains.btc.tx import RBF_SEQUENCE, Outpoint, Transaction, TxIn, TxOut
from chains.errors import InvalidValue
from chains.eth.safe import SafeMessage
from chains.types import TxId
from policies.bundle import (
    Approver,
    AssetEntry,
    Attestor,
    BitcoinKeyset,
    BitcoinNetwork,
    Breaker,
    Bundle,
    Caller,
    Confirmations,
    KeysetEntry,
    Officer,
    Operator,
    PriceBound,
    SignedBundle,
    TierCap,
    TrustRoot,
)
from policies.intent import (
    Approval,
    Carrier,
    Evidence,
    Intent,
    Kind,
    Order,
    SignedApproval,
    SignedVerdict,
    Verdict,
    resources_digest,
)
from policies.keys import SigningKey, sign_approval, sign_bundle, sign_order, sign_verdict
from policies.rules import Rule
from signers.keys.account import AccountSecret
from signers.keys.keyset import PURPOSES, BitcoinKeysetRecord
from signers.ports import SignRequest
from tests.support.amounts import AmountRules, policy_of
from tests.support.ruling import asked_for, every_wallet_pays, with_rules

CHAIN = "bitcoin-regtest"
KEYSET = "btc-hot"
REGTEST = NETWORKS["regtest"]
DAY = 24 * 3600
NOW = 1_800_000_000
"""The time of tests that have no clock of their own."""
DESTINATION = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
OTHER_DESTINATION = "bcrt1qcr8te4kr609gcawutmrza0j4xv80jy8zeqchgx"
APPROVERS = {"ada": "north", "ben": "south", "cem": "south"}
"""Who approves, and the organisation of each."""
ROLE = "treasurer"
"""What all of them are."""
VERIFIER = "vera"


def carrier_of(request: SignRequest) -> Carrier | None:
    """The transaction that a request is about, as verdicts name it; None if it cannot be read."""
    raw = base64.b64decode(request.transaction)
    try:
        message = SafeMessage.decode(raw)
        return Carrier(content=message.content, resources=resources_digest([message.resource]))
    except InvalidValue:
        pass
    try:
        tx = parse_psbt(raw).tx
    except InvalidValue:
        return None
    return Carrier(content=tx.txid.hex, resources=resources_digest(tx.resources))


@dataclass
class SoftKeys:
    """The keys of a key-set without an HSM, for tests of everything around it."""

    record: BitcoinKeysetRecord
    secret: AccountSecret[AccountKey]
    attestation: SigningKey
    account: AccountKey = field(init=False)

    def __post_init__(self) -> None:
        self.account = self.secret.public

    @classmethod
    def make(cls, entropy: bytes = bytes(32), keyset: str = KEYSET, script: KeyScript = "p2wpkh") -> SoftKeys:
        secret, origin = AccountSecret.from_entropy(entropy, REGTEST, f"{PURPOSES[script]}'/1'/0'")
        attestation = SigningKey.generate()
        record = BitcoinKeysetRecord(
            id=keyset,
            network="regtest",
            script=script,
            account=secret.public.xpub,
            origin=origin,
            attestation_key=attestation.public_hex,
        )
        return cls(record, secret, attestation)

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        return self.secret.sign(branch, index, digest)

    def attest(self, digest: bytes) -> bytes:
        return base64.b64decode(self.attestation.sign_digest(digest))


@dataclass(frozen=True)
class Coin:
    """An output of ours, with the whole transaction that made it."""

    previous: Transaction
    vout: int
    branch: int
    index: int

    @property
    def outpoint(self) -> Outpoint:
        return Outpoint(self.previous.txid, self.vout)

    @property
    def units(self) -> int:
        return self.previous.outputs[self.vout].units


def coin_of(script: bytes, units: int, branch: int, index: int) -> Coin:
    """A coin of any script in a fresh previous transaction."""
    salt = uuid.uuid4().bytes
    source = TxIn(Outpoint(TxId((salt + salt).hex()), 1))
    others = TxOut(1_000, p2wpkh_script_from_hash(bytes(20)))
    return Coin(Transaction(2, (source,), (others, TxOut(units, script))), 1, branch, index)


def payment_intent(keyset: str, order: Order, /, **changes: Any) -> Intent:
    """What a key-set of the hot tier should do for an order."""
    fields: dict[str, Any] = {
        "v": 1,
        "kind": Kind.PAYMENT,
        "id": order.id,
        "chain": order.chain,
        "keyset": keyset,
        "tier": "hot",
        "asset": order.asset,
        "destination": order.destination,
        "amount": order.amount,
        "order": order.digest_hex(),
        "policy_version": 1,
    }
    return Intent(**(fields | changes))


def own_intent(keyset: str, kind: Kind, /, **fields: Any) -> Intent:
    """What the house wants for itself; `fields` name at least chain, asset and destination."""
    common: dict[str, Any] = {
        "v": 1,
        "kind": kind,
        "id": str(uuid.uuid4()),
        "keyset": keyset,
        "tier": "hot",
        "amount": "0",
        "order": None,
        "policy_version": 1,
    }
    return Intent(**(common | fields))


@dataclass(kw_only=True)
class House:
    """Officers and callers: what signs bundles and orders, whatever the chain."""

    now: int = NOW
    officers: dict[str, SigningKey] = field(
        default_factory=lambda: {name: SigningKey.generate() for name in ("olga", "felix", "sanna")}
    )
    caller: SigningKey = field(default_factory=SigningKey.generate)
    stranger: SigningKey = field(default_factory=SigningKey.generate)
    verifier: SigningKey = field(default_factory=SigningKey.generate)
    operator: SigningKey = field(default_factory=SigningKey.generate)
    approvers: dict[str, SigningKey] = field(
        default_factory=lambda: {name: SigningKey.generate() for name in APPROVERS}
    )

    @property
    def root(self) -> TrustRoot:
        return TrustRoot(
            threshold=2,
            keys={name: key.public_hex for name, key in self.officers.items()},
            organisations={name: f"org-{name}" for name in self.officers},
            minimum_version=1,
        )

    def caller_entry(
        self, name: str, key: SigningKey, *, scopes: Sequence[str] = ("withdrawals:sign",), not_after: int = 0
    ) -> Caller:
        return Caller(
            id=name,
            key=key.public_hex,
            organisation="exchange",
            scopes=tuple(scopes),
            not_after=not_after or self.now + 365 * DAY,
        )

    def people(self) -> dict[str, Any]:
        """Callers, officers, approvers and the verifier as fields of a bundle."""
        return {
            "callers": (
                self.caller_entry("exchange", self.caller),
                self.caller_entry("reader", self.stranger, scopes=("withdrawals:read",)),
            ),
            "officers": tuple(
                Officer(id=name, key=key.public_hex, organisation=f"org-{name}", not_after=self.now + DAY)
                for name, key in self.officers.items()
            ),
            "approvers": tuple(self.approver_entry(name) for name in self.approvers),
            "verifiers": (self.verifier_entry(),),
            "operators": (self.operator_entry(),),
        }

    def operator_entry(self) -> Operator:
        """Otto, who may do everything by hand."""
        return Operator(
            id="otto",
            key=self.operator.public_hex,
            organisation="house",
            roles=("support", "treasury", "compliance", "security", "auditor"),
            not_after=self.now + 365 * DAY,
        )

    def approver_entry(self, name: str, **changes: Any) -> Approver:
        fields: dict[str, Any] = {
            "id": name,
            "key": self.approvers[name].public_hex,
            "organisation": APPROVERS[name],
            "roles": (ROLE,),
            "not_after": self.now + 365 * DAY,
        }
        return Approver(**(fields | changes))

    def verifier_entry(self, **changes: Any) -> Attestor:
        fields: dict[str, Any] = {
            "id": VERIFIER,
            "key": self.verifier.public_hex,
            "organisation": f"org-{VERIFIER}",
            "not_after": self.now + 365 * DAY,
        }
        return Attestor(**(fields | changes))

    def requirement(self, **changes: Any) -> Rule:
        """What warm payments of BTC need: two people and a verdict."""
        return asked_for(**({"group": ROLE} | changes))

    def approval(
        self, intent: Intent, name: str = "ada", *, key: SigningKey | None = None, **changes: Any
    ) -> SignedApproval:
        """An approver's approval of an intent, signed with his key or another one."""
        fields: dict[str, Any] = {
            "v": 1,
            "intent": intent.digest_hex(),
            "decision": "approve",
            "approver": name,
            "group": ROLE,
            "policy_version": intent.policy_version,
            "expires_at": self.now + 3600,
        }
        return sign_approval(Approval(**(fields | changes)), key or self.approvers[name])

    def verdict(self, intent: Intent, *, key: SigningKey | None = None, **changes: Any) -> SignedVerdict:
        """The verifier's verdict on an intent, signed with its key or another one."""
        fields: dict[str, Any] = {
            "v": 1,
            "intent": intent.digest_hex(),
            "verifier": VERIFIER,
            "outcome": "bound" if intent.kind is Kind.REFILL else "covered",
            "expires_at": self.now + 300,
        }
        return sign_verdict(Verdict(**(fields | changes)), key or self.verifier)

    def evidence(
        self, request: SignRequest, names: Sequence[str] = ("ada", "ben"), **changes: Any
    ) -> SignRequest:
        """The request with these people's approvals and a verdict for each payment, or what `changes` name."""
        payments = [intent for intent in request.intents if intent.kind is Kind.PAYMENT]
        carrier = carrier_of(request)
        fields: dict[str, Any] = {
            "approvals": tuple(self.approval(intent, name) for intent in payments for name in names),
            "verdicts": tuple(self.verdict(intent, carrier=carrier) for intent in payments),
        }
        evidence = msgspec.structs.replace(request.evidence, **(fields | changes))
        return msgspec.structs.replace(request, evidence=evidence)

    def completed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Fields of a bundle, and limits too wide to matter where they name none.

        `requirements` are rules that are added to the policy: of one that lets every wallet pay where none is named.
        """
        payers = fields.get("gas_payers", ())
        wallets = (*fields["keysets"], *fields.get("vaults", ()), *payers)
        roles = sorted({role for approver in fields.get("approvers", ()) for role in approver.roles})
        policy = fields.pop("policy", None) or every_wallet_pays(wallets)
        policy = with_rules(policy, fields.pop("requirements", ()), roles)
        # One each: a signer refuses where a breaker also counts what others sign.
        breakers = tuple(
            Breaker(id=f"all-{keyset.id}", keysets=(keyset.id,), value_cap=str(10**30), window_seconds=DAY)
            for keyset in (*fields["keysets"], *payers)
        )
        wide: dict[str, Any] = {
            "longest_order_seconds": DAY,
            "breakers": breakers,
            "prices": tuple(
                PriceBound(asset=asset.id, low="1", high="10000000") for asset in fields["assets"]
            ),
        }
        return wide | fields | {"policy": policy}

    def signed(self, bundle: Bundle, names: Sequence[str] = ("olga", "felix")) -> SignedBundle:
        return sign_bundle(bundle, {name: self.officers[name] for name in names})

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        """The bundle of a version, with changes."""
        raise NotImplementedError


AMOUNTS = policy_of(
    [
        AmountRules(
            asset="BTC",
            hot_below=10_000_000,
            warm_below=1_000_000_000,
            hot_window_cap=500_000_000,
            customer_window_cap=200_000_000,
            window_seconds=DAY,
        )
    ]
)
"""Where all wallets are hot: tiers by amount, and windows."""


@dataclass
class World(House):
    """A bundle that names the people of the house and one hot key-set for BTC."""

    record: BitcoinKeysetRecord

    def __post_init__(self) -> None:
        self.account = AccountKey.parse(self.record.account, REGTEST, self.record.script)

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        """The bundle; `changes` are fields of the bundle, its network (`network_...`) or cap (`cap_...`)."""

        def named(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): v for name, v in changes.items() if name.startswith(prefix)}

        network: dict[str, Any] = {
            "chain": CHAIN,
            "network": "regtest",
            "genesis": REGTEST.genesis_hash,
            "native_asset": "BTC",
            "settle_blocks": 6,
            "feerate_floor": 1_000,
            "feerate_cap": 100_000,
            "fee_cap": "100000",
            "fee_window_cap": "1000000",
            "fee_window_seconds": DAY,
        }
        cap: dict[str, Any] = {
            "tier": "hot",
            "asset": "BTC",
            "payment_below": "10000000",
            "window_cap": "500000000",
            "window_seconds": DAY,
        }
        plain = {k: v for k, v in changes.items() if not k.startswith(("network_", "cap_"))}
        fields: dict[str, Any] = {
            "v": 1,
            "version": version,
            "issued_at": self.now - 10,
            "expires_at": self.now + 30 * DAY,
            "networks": (BitcoinNetwork(**(network | named("network_"))),),
            "assets": (
                AssetEntry(
                    id="BTC",
                    chain=CHAIN,
                    decimals=8,
                    contract=None,
                    minimum_deposit="1000",
                    withdrawal_fee="50000",
                    confirmations=(Confirmations(from_units="0", blocks=6),),
                ),
            ),
            "keysets": (self.keyset_entry(),),
            "caps": (TierCap(**(cap | named("cap_"))),),
            **self.people(),
        } | plain
        if all(wallet.tier == "hot" for wallet in (*fields["keysets"], *fields.get("vaults", ()))):
            fields.setdefault("policy", AMOUNTS)
        return Bundle(**self.completed(fields))

    def keyset_entry(self, **changes: Any) -> KeysetEntry:
        fields: dict[str, Any] = {
            "id": self.record.id,
            "chain": CHAIN,
            "tier": "hot",
            "script": self.record.script,
            "account": self.record.account,
            "origin": self.record.origin,
            "attestation_key": self.record.attestation_key,
        }
        return BitcoinKeyset(**(fields | changes))

    def coin(self, units: int = 5_000_000, branch: int = 0, index: int = 0) -> Coin:
        """A coin of ours in a fresh previous transaction."""
        return coin_of(self.account.script(branch, index), units, branch, index)

    def order(self, units: int = 1_000_000, **changes: Any) -> Order:
        fields: dict[str, Any] = {
            "v": 1,
            "id": str(uuid.uuid4()),
            "caller": "exchange",
            "customer": "alice",
            "chain": CHAIN,
            "asset": "BTC",
            "destination": DESTINATION,
            "amount": str(units),
            "fee_ceiling": "50000",
            "expires_at": self.now + 3600,
        }
        return Order(**(fields | changes))

    def intent(self, order: Order, /, **changes: Any) -> Intent:
        return payment_intent(self.record.id, order, **changes)

    def house_intent(self, kind: Kind, **changes: Any) -> Intent:
        """An intent of the house's own: a consolidation."""
        fields = {"chain": CHAIN, "asset": "BTC", "destination": self.account.address(1, 0)}
        return own_intent(self.record.id, kind, **(fields | changes))

    def path(self, branch: int, index: int) -> tuple[int, ...]:
        return (*Origin.parse(self.record.origin).path, branch, index)

    def request(self, draft: Draft) -> SignRequest:
        """The request for a draft: intents, signed orders and PSBT."""
        orders = draft.orders
        return SignRequest(
            chain=CHAIN,
            keyset=self.record.id,
            intents=tuple(draft.intents or [self.intent(order) for order in orders]),
            evidence=Evidence(orders=tuple(sign_order(order, self.caller) for order in orders)),
            transaction=base64.b64encode(self.psbt(draft)).decode(),
        )

    def psbt(self, draft: Draft) -> bytes:
        place = (1, draft.change_index)
        tx, number = transaction_of(draft, self.account.script(*place))
        change = {} if number is None else {number: (self.account.pubkey(*place), self.path(*place))}
        inputs = [
            PsbtInput(
                coin.outpoint,
                draft.sequence,
                coin.previous.serialize(),
                self.path(coin.branch, coin.index),
                self.account.pubkey(coin.branch, coin.index),
            )
            for coin in draft.coins
        ]
        return build_psbt(tx, inputs, change, self.record.fingerprint)


@dataclass
class Draft:
    """A transaction to be asked for; the defaults are honest, tests change one thing at a time."""

    coins: list[Coin]
    orders: list[Order]
    fee_sats: int = 2_000
    change_index: int = 0
    outputs: list[TxOut] | None = None
    """Payments; one per order if None."""
    extra_outputs: list[TxOut] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    version: int = 2
    locktime: int = 0
    sequence: int = RBF_SEQUENCE


def transaction_of(draft: Draft, change: bytes) -> tuple[Transaction, int | None]:
    """The draft's transaction, with what is left to the script `change`; and the number of that output, if any."""
    outputs = draft.outputs
    if outputs is None:
        outputs = [TxOut(o.units, parse_address(o.destination, REGTEST, CHAIN).script) for o in draft.orders]
    outputs = [*outputs, *draft.extra_outputs]
    left = sum(c.units for c in draft.coins) - sum(out.units for out in outputs) - draft.fee_sats
    rest = [TxOut(left, change)] if left > 0 else []
    tx = Transaction(
        draft.version,
        tuple(TxIn(coin.outpoint, draft.sequence) for coin in draft.coins),
        (*outputs, *rest),
        draft.locktime,
    )
    return tx, len(outputs) if rest else None
