"""What can go wrong in the trading core's service. The engine itself never raises on bad input: it answers
`Rejected`.

```
PermanentError
├── JournalError
│   ├── JournalCorrupt         bytes in the middle are not what was written: nobody may trade on it
│   ├── JournalInUse           another process has this directory
│   └── JournalBroken          a write failed: nothing more is acknowledged, the process has to end
├── CustodyRefused             custody said no, and saying it again cannot help
├── NotYourCustomer            the caller may not act for this customer
├── OrderRejected              the engine's own refusal, with its code and numbers
├── TransferConflict           a transfer's id was used for another one
└── Closed                     the core is ending, or has ended
TransientError
├── Busy                       the core's queue is full
├── SettlementBehind           too much waits for the ledger: new orders are refused, cancels are not
└── CustodyUnavailable         no answer, or one that a later retry can change
```
"""

from __future__ import annotations

from collections.abc import Mapping

from chains.errors import PermanentError, TransientError


class JournalError(PermanentError):
    """Base of what is wrong with a journal or a snapshot."""


class JournalCorrupt(JournalError):
    """`file` is not what was written, at byte `offset`: restore the directory from its copy, do not edit it."""

    def __init__(self, file: str, offset: int, why: str) -> None:
        super().__init__(
            f"the journal file {file} is damaged at byte {offset}: {why}. "
            "Nothing was changed. Restore this directory from a copy that is whole"
        )
        self.file, self.offset, self.why = file, offset, why


class JournalInUse(JournalError):
    """Another process writes to this journal."""


class JournalBroken(JournalError):
    """A write or its sync failed: what is on the disk is known again only after a restart."""


class CustodyRefused(PermanentError):
    """Custody refuses for good: `code` is the last part of its problem's type."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"custody refused ({code}): {detail}")
        self.code, self.detail = code, detail


class NotYourCustomer(PermanentError):
    """The caller may not act for this customer, or there is no such customer: both look the same."""

    def __init__(self, caller: str, customer: str) -> None:
        super().__init__(f"caller {caller!r} may not act for customer {customer!r}")
        self.caller, self.customer = caller, customer


class OrderRejected(PermanentError):
    """The engine refused a command: it had no effect at all."""

    def __init__(self, code: str, subject: str, numbers: Mapping[str, str]) -> None:
        shown = ", ".join(f"{name} {value}" for name, value in numbers.items())
        super().__init__(f"{subject}: {code.replace('_', ' ')}{f' ({shown})' if shown else ''}")
        self.code, self.subject, self.numbers = code, subject, dict(numbers)


class TransferConflict(PermanentError):
    """A transfer with this id exists with other content."""

    def __init__(self, id: str) -> None:
        super().__init__(f"transfer {id} exists with other content: use a new id")
        self.id = id


class Closed(PermanentError):
    """The core takes nothing more: it is ending, or its journal could not be written."""


class Busy(TransientError):
    """`waiting` commands wait already; nothing of this one was done."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} commands wait already; nothing of this one was done")
        self.waiting = waiting


class SettlementBehind(TransientError):
    """`unsettled` fills wait for the ledger, the oldest for `seconds` s: until it answers, orders can only be
    cancelled."""

    def __init__(self, unsettled: int, seconds: int) -> None:
        super().__init__(
            f"{unsettled} fills wait for the ledger, the oldest for {seconds} s; until they are settled "
            "new orders are refused, cancels are not"
        )
        self.unsettled, self.seconds = unsettled, seconds


class CustodyUnavailable(TransientError):
    """Custody did not answer, or not for good; whether the request took effect is not known."""
