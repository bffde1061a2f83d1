"""An officer's word on the time, for a trial's signer that stood still for long."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ops.devnet.errors import DevnetError
from ops.stack.keys import Person
from policies.keys import sign_clock
from policies.statements import ClockConfirmation
from signers.client import SignerClient, UnixAddress
from signers.ports import Refused, SignerUnavailable


def confirm_clock(signer: Path, officer: Person, *, at: int, tell: Callable[[str], None]) -> None:
    """Ends the signer's suspension because of the time, if there is one. Again changes nothing.

    In a real installation an officer looks at a clock of his own and runs `strongroom key clock`.

    Args:
        signer: its socket.
        officer: one of the bundle's.
        at: the time, UNIX seconds.
        tell: hears what is done.

    Raises:
        DevnetError: the signer does not answer, or does not take it; says why.
    """
    with closing(SignerClient(UnixAddress(signer))) as client:
        try:
            status = client.status()
            if not status.suspended:
                return
            tell(f"the signer signs nothing, as {status.suspended}: officer {officer.id} confirms the time")
            told = ClockConfirmation(v=1, officer=officer.id, journal=status.journal, at=at)
            client.confirm_clock(sign_clock(told, officer.key))
        except (Refused, SignerUnavailable) as error:
            raise DevnetError(f"the signer's clock was not confirmed: {error}") from error


def answers(signer: Path) -> bool:
    """Whether a signer takes calls at its socket."""
    with closing(SignerClient(UnixAddress(signer))) as client:
        try:
            client.status()
        except SignerUnavailable:
            return False
    return True
