"""The room of a ceremony: the plan, the people, both operators' keys, and the token."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from policies.canonical import Document
from policies.keys import SigningKey
from signers.ceremony.operators import load_operator_key
from signers.ceremony.people import People, Step, people_of, unless_interrupted
from signers.ceremony.plan import OperatorPlan, TokenPlan
from signers.ceremony.record import Operator, OperatorSignature
from signers.config import Environment, TokenSection, pin_reader
from signers.errors import CeremonyStopped
from signers.hsm.pkcs11 import Token
from signers.process.hardening import harden_process


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


@contextmanager
def gathered(
    environment: Environment,
    operators: Sequence[OperatorPlan],
    token: TokenPlan,
    answers: Path | None,
) -> Iterator[tuple[People, Operators, Token]]:
    """The people, both operators with their keys, and the token, in a process that gives no secrets away.

    Args:
        environment: of the plan.
        operators: of the plan.
        token: of the plan; closed at the end.
        answers: file that answers for the people, in rehearsals only.

    Raises:
        BadConfiguration: answers in production, no terminal, or a malformed file.
        CeremonyStopped: a key is missing or does not open; or somebody stopped it at the terminal.
        TokenRefused: the token does not let its user in.
        TokenLost: the token does not answer.
    """
    harden_process()
    people = people_of(environment, answers)
    with unless_interrupted():
        both = Operators(operators, people)
        opened = open_token(token, people)
        try:
            yield people, both, opened
        finally:
            opened.close()


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
