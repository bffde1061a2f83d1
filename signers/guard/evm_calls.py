"""What a call moves, of the few kinds that are ever signed on EVM chains; and by name, what thieves ask for. Pure.

A refusal needs no name: whatever is not of the closed list is refused. But an operator who reads `allowance` or
`safe-administration` knows that somebody tries to rob him, and `unknown-call` could be a mistake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final, NamedTuple

from chains.errors import InvalidValue
from chains.eth.address import checksummed, parse_address
from chains.eth.erc20 import decode_transfer
from chains.eth.named_calls import named_call
from policies.bundle import Bundle
from policies.intent import Kind
from signers.guard.examined import Unreadable, refills_of
from signers.guard.orders import written_otherwise
from signers.ports import Reason, SignRequest

_NOBODY: Final = bytes(20)


class Transfer(NamedTuple):
    """Value that a transaction moves to somebody."""

    contract: bytes | None
    """Of the token, 20 bytes; None for the native asset."""
    to: bytes
    units: int


def refusal(data: bytes, code: str, detail: str) -> Unreadable:
    """Why a call is refused: by the name of what it is known to be, or else with `code` and `detail`."""
    known = named_call(data)
    return Unreadable(known.code, f"{known.call} is never signed") if known else Unreadable(code, detail)


def money_transfer(to: bytes, value_wei: int, data: bytes, tokens: Collection[bytes]) -> Transfer:
    """The native asset to anybody without calldata, or a listed token by `transfer` without value.

    Args:
        to: whom the call is to, 20 bytes.
        value_wei: native money that goes along.
        data: calldata.
        tokens: contracts of the listed tokens.

    Raises:
        Unreadable: it is neither.
    """
    if to not in tokens:
        if data:
            told = f"{len(data)} bytes of calldata to {checksummed(to)}, which is not listed"
            raise refusal(data, "unlisted-contract", told)
        return Transfer(None, to, value_wei)
    try:
        transfer = decode_transfer(data)
    except InvalidValue as error:
        raise refusal(data, "unknown-call", str(error)) from None
    if value_wei != 0:
        raise Unreadable("value-with-call", f"{value_wei} wei go to a token contract")
    return Transfer(to, transfer.to, transfer.units)


def listed(address: str) -> bytes:
    """The 20 bytes of an address in the bundle, whose checksum was looked at when the bundle was read."""
    return bytes.fromhex(address[2:])


def token_contracts(bundle: Bundle, chain: str) -> frozenset[bytes]:
    """Contracts of the tokens that are listed on a chain."""
    return frozenset(
        listed(entry.contract)
        for entry in bundle.assets
        if entry.chain == chain and entry.contract is not None
    )


def wanted_transfers(
    request: SignRequest, ours: Collection[str | None], bundle: Bundle, tokens: Collection[bytes]
) -> tuple[Counter[Transfer], list[Reason]]:
    """What the payments ask for, and objections to where they go.

    Args:
        request: its intents.
        ours: addresses of the wallet that pays and of its contracts, to which nothing is paid.
        bundle: knows the assets.
        tokens: contracts of the listed tokens, to which nothing is paid either.
    """
    wanted: Counter[Transfer] = Counter()
    reasons: list[Reason] = []
    for intent in request.intents:
        if intent.kind is not Kind.PAYMENT:
            continue
        try:
            to = parse_address(intent.destination, request.chain)
        except InvalidValue as error:
            reasons.append(Reason("bad-destination", str(error)))
            continue
        reasons += written_otherwise(intent.destination, to.text)
        if to.script == _NOBODY or to.script in tokens or to.text in ours:
            reasons.append(
                Reason(
                    "bad-destination", f"{to.text} is the zero address, a listed token's contract or our own"
                )
            )
        contract = bundle.asset(intent.asset).contract
        wanted[Transfer(listed(contract) if contract else None, to.script, intent.units)] += 1
    return wanted, reasons


def wanted_refills(request: SignRequest, bundle: Bundle) -> Counter[Transfer]:
    """What the refills ask for, whoever is at their destination."""
    wanted: Counter[Transfer] = Counter()
    for intent in refills_of(request):
        try:
            to = parse_address(intent.destination, request.chain)
            contract = bundle.asset(intent.asset).contract
        except InvalidValue:
            continue  # whose address and which asset it is, others ask: no transfer is wanted
        wanted[Transfer(listed(contract) if contract else None, to.script, intent.units)] += 1
    return wanted


def transfer_reasons(paid: Counter[Transfer], wanted: Counter[Transfer]) -> list[Reason]:
    """Every transfer pays exactly one intent, and every payment is paid exactly once."""
    return [
        *(
            Reason(
                "unknown-output",
                f"{count} of {of.units} units to {checksummed(of.to)} that no intent asks for",
            )
            for of, count in (paid - wanted).items()
        ),
        *(
            Reason("unpaid-intent", f"{count} intents of {of.units} units to {checksummed(of.to)}")
            for of, count in (wanted - paid).items()
        ),
    ]
