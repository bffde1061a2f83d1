"""What a Safe request would do, in plain words, and every reason not to sign it. Pure.

Two readers that share nothing decode the file and compute what would be signed; they must agree. Then the list of what
is signed is closed: money of the chain without calldata, a registered token by `transfer`, the empty cancellation of a
nonce, or a change of whom deposits pay, to the active hot key; by plain call, of a registered Safe, without refunds of
gas. Everything else is refused, not warned about
(Bybit 2025: the screen showed one thing, the bytes did another).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from chains.errors import InvalidValue, PermanentError
from chains.eth.address import ADDRESS_BYTES, checksummed
from chains.eth.erc20 import decode_transfer
from chains.eth.factory import TreasuryCall
from chains.eth.named_calls import named_call
from chains.eth.safe import CALL, SafeMessage, SafeTx
from chains.eth.safe_files import SafeRequest, decode_request
from signers.airgap.evm_factory import Change, change_lines, change_objections, change_of
from signers.airgap.evm_second import SecondReading, second_reading
from signers.airgap.evm_words import Money, date, head_lines, money_lines, other_lines, tail_lines
from signers.airgap.registered import Registered, RegisteredNetwork, RegisteredToken

LONG_EXPIRY_DAYS: Final = 30
"""A request that can be signed for longer is worth a warning: or the machine's clock is slow."""

_NOBODY: Final = bytes(ADDRESS_BYTES)
_ENDS_DIGITS: Final = 4
_DAY_SECONDS: Final = 86_400


class DecodersDisagree(PermanentError):
    """Two readers of one request differ. One of them is wrong, or the request is made to be misread."""


class Objection(NamedTuple):
    """A reason to refuse."""

    code: str
    """For programs, such as `delegate-call`."""
    text: str
    """For the holder: what is wrong, and what to do."""

    def __str__(self) -> str:
        return f"{self.text} [{self.code}]"


@dataclass(frozen=True, slots=True)
class SafeReview:
    """A request that was looked at."""

    lines: tuple[str, ...]
    """What the holder must read."""
    warnings: tuple[str, ...]
    objections: tuple[Objection, ...]
    """Reasons to refuse; empty: it may be signed if the holder wants to."""
    message: SafeMessage
    safe_tx_hash: bytes
    """What is signed (32 bytes), as both readers have computed it."""
    money: Money | None
    """What leaves the Safe; None: nothing (a cancellation), or it cannot be said."""
    change: Change | None
    """What it does to a factory whose admin the Safe is; None: it calls none."""
    owner: str
    """For whom it was looked at."""

    @property
    def codes(self) -> frozenset[str]:
        """Of the objections."""
        return frozenset(objection.code for objection in self.objections)


def review_request(raw: bytes, registered: Registered, owner: str, now: int) -> SafeReview:
    """Look at the bytes of a request with what is registered for an owner's key.

    Args:
        raw: of the file.
        registered: Safes, networks, tokens and names that the holder has accepted.
        owner: the key's address, with its checksum.
        now: by the machine's clock, UNIX seconds.

    Raises:
        BadSafeFile: no request in its only form.
        DecodersDisagree: two readers read two things.
    """
    request = decode_request(raw)
    _compare(request, raw)
    message, tx = request.message, request.message.tx
    network = registered.network(message.chain_id)
    safe = registered.safe(message.chain_id, checksummed(message.safe))
    objections = [*_place(message, registered, owner), *_envelope(tx), *_expiry(request.expires_at, now)]
    change, money = change_of(message, registered), None
    if change is None:
        money, effect = _effect(message, registered, network)
    else:
        effect = _changes(change, tx)
    objections += effect
    head = head_lines(message, safe, network)
    if change is not None:
        body = change_lines(change)
    else:
        body = money_lines(money, message.chain_id, registered) if money else other_lines(message)
    return SafeReview(
        lines=(*head, *body, *tail_lines(request, now)),
        warnings=tuple(_warnings(request, money, registered, now)),
        objections=tuple(objections),
        message=message,
        safe_tx_hash=message.signing_hash,
        money=money,
        change=change,
        owner=owner,
    )


def _compare(request: SafeRequest, raw: bytes) -> None:
    """Have a second reader read the same. Raises DecodersDisagree."""
    try:
        second = second_reading(raw)
    except InvalidValue as error:
        raise DecodersDisagree(f"{error}. Ask for a new request, and tell the others") from None
    first = _first_reading(request)
    for what, one, other in zip(SecondReading._fields, first, second, strict=True):
        if one != other:
            raise DecodersDisagree(
                f"two readers of the request differ in {what}. Do not sign it; ask for a new one, and tell the others"
            )


def _first_reading(request: SafeRequest) -> SecondReading:
    """What our own decoders read, in the other's form."""
    message, tx = request.message, request.message.tx
    try:
        called = decode_transfer(tx.data)
        transfer = (called.to, called.units)
    except InvalidValue:
        transfer = None
    try:
        treasury = TreasuryCall.decode(tx.data)
    except InvalidValue:
        treasury = None
    fields = (tx.to, tx.value_wei, tx.data, tx.operation, tx.safe_tx_gas, tx.base_gas, tx.gas_price)
    return SecondReading(
        message.chain_id,
        message.safe,
        (*fields, tx.gas_token, tx.refund_receiver, tx.nonce),
        request.expires_at,
        message.signing_hash,
        transfer,
        None if treasury is None else (treasury.step, treasury.treasury),
    )


def _place(message: SafeMessage, registered: Registered, owner: str) -> list[Objection]:
    """Objections to the network, the Safe and the owner."""
    address, chain_id = checksummed(message.safe), message.chain_id
    safe = registered.safe(chain_id, address)
    if safe is None:
        elsewhere = [each for each in registered.safes if each.address == address]
        if elsewhere:
            told = (
                f"your Safe {elsewhere[0].id} is on {elsewhere[0].chain} (chain id {elsewhere[0].chain_id})"
            )
            return [Objection("wrong-chain-id", f"WRONG NETWORK: chain id {chain_id}, but {told}.")]
        return [
            Objection(
                "unregistered-safe",
                f"UNKNOWN SAFE: {address} on chain id {chain_id} is not registered on this machine. "
                "Register the signed bundle that names it, or refuse.",
            )
        ]
    found = []
    if registered.network(chain_id) is None:
        found.append(
            Objection("unregistered-network", f"The network with chain id {chain_id} is not registered.")
        )
    if owner not in {each.address for each in safe.owners}:
        found.append(
            Objection("not-an-owner", f"Your key {owner} is no owner of {safe.id}: another key signs this.")
        )
    return found


def _envelope(tx: SafeTx) -> list[Objection]:
    """Objections to how the Safe would act: by other code, or paying for gas."""
    found = []
    if tx.operation != CALL:
        found.append(
            Objection(
                "delegate-call",
                f"DELEGATECALL: code at {checksummed(tx.to)} would run as if it were your Safe, and could take it "
                "over. Never signed.",
            )
        )
    if tx.refunds:
        found.append(
            Objection(
                "refund-fields",
                "GAS REFUND: gas fields are set (safeTxGas, baseGas, gasPrice, gasToken or refundReceiver), by which "
                "money can leave beside the payment. Never signed.",
            )
        )
    return found


def _expiry(expires_at: int, now: int) -> list[Objection]:
    if expires_at > now:
        return []
    return [
        Objection(
            "expired",
            f"EXPIRED: it was to be signed before {date(expires_at)}; this machine's clock says {date(now)}. "
            "If the clock is wrong, set it; else ask for a new request.",
        )
    ]


def _effect(
    message: SafeMessage, registered: Registered, network: RegisteredNetwork | None
) -> tuple[Money | None, list[Objection]]:
    """What moves (None: nothing, or it can't be said), and objections to what is called."""
    tx, chain_id = message.tx, message.chain_id
    if tx.to == message.safe:
        if (tx.value_wei, tx.data) == (0, b""):
            return None, []
        return None, [_refused(tx.data, "safe-administration", "the Safe would call itself")]
    token = registered.token(chain_id, checksummed(tx.to))
    if token is not None:
        return _token_effect(message, token, registered)
    if tx.data:
        contract = f"{len(tx.data)} bytes of calldata to {checksummed(tx.to)}, which is no registered token"
        return None, [_refused(tx.data, "unlisted-contract", contract)]
    coin = (network.decimals, network.symbol) if network else (18, "of an unknown coin")
    money = Money(tx.value_wei, *coin, tx.to, None)
    return money, _recipient(money, message, registered)


def _changes(change: Change, tx: SafeTx) -> list[Objection]:
    """Objections to what a Safe does to its factory."""
    found = [Objection(code, told) for code, told in change_objections(change, tx.value_wei)]
    if change.call is None:
        found.append(_refused(tx.data, "unknown-call", "no call by which whom deposits pay is changed"))
    return found


def _token_effect(
    message: SafeMessage, token: RegisteredToken, registered: Registered
) -> tuple[Money | None, list[Objection]]:
    tx = message.tx
    try:
        called = decode_transfer(tx.data)
    except InvalidValue as error:
        return None, [
            _refused(tx.data, "unknown-call", f"a call of {token.symbol} that is no transfer ({error})")
        ]
    money = Money(called.units, token.decimals, token.symbol, called.to, tx.to)
    found = _recipient(money, message, registered)
    if tx.value_wei:
        found.append(
            Objection(
                "value-with-call",
                f"{tx.value_wei} wei would go to the contract of {token.symbol}, and be lost.",
            )
        )
    return money, found


def _recipient(money: Money, message: SafeMessage, registered: Registered) -> list[Objection]:
    """Objections to who gets it, and how much."""
    found = []
    token = registered.token(message.chain_id, checksummed(money.to))
    wrong = {
        _NOBODY: "the zero address",
        message.safe: "the Safe itself",
        money.contract: "the token's contract",
    }
    if money.to in wrong or token is not None:
        name = wrong.get(money.to, "a token's contract")
        found.append(Objection("bad-destination", f"It would go to {name}, from where nobody gets it back."))
    model = _looks_like(checksummed(money.to), registered)
    if model is not None:
        found.append(
            Objection(
                "lookalike",
                f"LOOKALIKE: {checksummed(money.to)} begins and ends like {model}, which your bundle names, but is "
                "another address. Somebody may have made it to be mistaken for yours.",
            )
        )
    if money.units == 0:
        found.append(Objection("moves-nothing", "It moves nothing, and is no cancellation either."))
    return found


def _looks_like(address: str, registered: Registered) -> str | None:
    """A registered address that people could take another one for, as they look at both ends; None: there is none."""
    ours = {safe.address for safe in registered.safes} | {known.address for known in registered.known}
    ours |= {token.contract for token in registered.tokens}
    ours |= {owner.address for safe in registered.safes for owner in safe.owners}
    ends = _ends(address)
    return next((each for each in sorted(ours - {address}) if _ends(each) == ends), None)


def _ends(address: str) -> str:
    """What people compare: the first and last digits."""
    digits = address[2:].lower()
    return digits[:_ENDS_DIGITS] + digits[-_ENDS_DIGITS:]


def _refused(data: bytes, code: str, told: str) -> Objection:
    """By the name of what it is known to be, or else with `code`."""
    known = named_call(data)
    if known is None:
        return Objection(code, f"NOT A PAYMENT: {told}. Never signed.")
    return Objection(known.code, f"NOT A PAYMENT: {known.call}; {told}. Never signed.")


def _warnings(request: SafeRequest, money: Money | None, registered: Registered, now: int) -> list[str]:
    found = []
    if request.expires_at - now > LONG_EXPIRY_DAYS * _DAY_SECONDS:
        found.append(
            f"It can be signed until {date(request.expires_at)}, for more than {LONG_EXPIRY_DAYS} days: is this "
            f"machine's clock ({date(now)}) right?"
        )
    safe = registered.safe(request.message.chain_id, checksummed(request.message.safe))
    paid = checksummed(money.to) if money else None
    if safe is not None and paid in {each.address for each in safe.owners}:
        found.append(f"It goes to {paid}, the key of an owner of this Safe: such keys hold no money.")
    if registered.source is not None and registered.source.expires_at <= now:
        found.append(
            f"The registered bundle has ended ({date(registered.source.expires_at)}): register a new one."
        )
    return found
