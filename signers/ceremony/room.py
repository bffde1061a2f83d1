"""The room of a ceremony: the plan, the people, both operators' keys, and the token."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from policies.canonical import Document
from policies.keys import SigningKey
from signers.ceremony.operators import load_operator_key
from signers.ceremony.people import People, Step
from signers.ceremony.plan import OperatorPlan, TokenPlan
from signers.ceremony.record import Operator, OperatorSignature
from signers.config import TokenSection, pin_reader
from signers.errors import CeremonyStopped
from signers.pkcs11 import Token


class Operators:
    """Two people who confirm every step together, and sign what was done.

    Args:
        plans: who they are and where their keys are.
        people: how they are asked.

    Raises:
        CeremonyStopped: a key is missing or does not open, or both are the same one.
    """

    def __init__(self, plans: Sequence[OperatorPlan], people: People) -> None:
        self._people = people
        self._keys = {plan.name: _opened(plan, people) for plan in plans}
        if len(self._keys) != 2 or len({key.public_hex for key in self._keys.values()}) != 2:
            raise CeremonyStopped("two operators with a key each are needed; these are one and the same")

    def __repr__(self) -> str:
        return f"Operators({', '.join(self._keys)})"

    @property
    def described(self) -> tuple[Operator, Operator]:
        """What the record says of them."""
        first, second = (Operator(name=name, key=key.public_hex) for name, key in self._keys.items())
        return first, second

    def confirm(self, step: Step, summary: str) -> None:
        """Have both confirm a step. Raises CeremonyStopped: one of them does not."""
        for name in self._keys:
            self._people.confirm(name, step, summary)

    def sign(self, document: Document) -> tuple[OperatorSignature, OperatorSignature]:
        """Both signatures, in the record's order."""
        signed = [
            OperatorSignature(operator=name, signature=key.sign(document)) for name, key in self._keys.items()
        ]
        return signed[0], signed[1]


def open_token(plan: TokenPlan, people: People) -> Token:
    """Log in to a token of the plan. Raises TokenRefused, TokenLost, BadConfiguration (its PIN file)."""
    if plan.pin_file is None:
        return Token(Path(plan.module), plan.label, lambda: people.pin(plan.label))
    section = TokenSection(module=plan.module, label=plan.label, pin_file=plan.pin_file)
    return Token(Path(plan.module), plan.label, pin_reader(section))


def now_seconds() -> int:
    """UNIX time."""
    return time.time_ns() // 10**9


def private_directory(path: Path) -> Path:
    """A directory, made private (0700) if it has to be made. Raises CeremonyStopped."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CeremonyStopped(f"{path}: {os.strerror(error.errno or 0)}") from None
    return path


def _opened(plan: OperatorPlan, people: People) -> SigningKey:
    return load_operator_key(plan.name, Path(plan.key_file), lambda: people.passphrase(plan.name))
