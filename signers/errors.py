"""What goes wrong inside a signer.

```
PermanentError
├── SignerStopped        the stores contradict each other, or a configured part is wrong: a person must look
│   ├── JournalMismatch  journal and high-water mark disagree
│   └── SelfCheckFailed  a known answer came out differently
├── TokenRefused         the HSM refused: wrong PIN, missing token, missing key
├── SealBroken           a sealed seed or a key's record that is not of this token
├── NotProven            a key-set without the genuine record of a ceremony whose backup was proven by a restore
├── NotTested            a key-set whose backend has not passed `strongroom key test`, or has changed since
├── CeremonyStopped      a ceremony or restore ended before its end; the message says what to do next
└── BadConfiguration     the configuration says something impossible; the message says what to write
TransientError
├── TokenLost            the HSM does not answer now
├── WrongSignature       a backend returned a signature that does not verify; it was not released
├── JournalUnavailable   the journal could not be committed (disk full, I/O error): nothing is signed any more
├── Withheld             (a SignerUnavailable) a signature that may be out already is not given out again now
└── ClockUnsteady        the clock went back or jumped forward
```
"""

from __future__ import annotations

from chains.errors import PermanentError, TransientError
from signers.ports import SignerUnavailable


class SignerStopped(PermanentError):
    """The signer must not run until a person has looked."""


class JournalMismatch(SignerStopped):
    """Journal and high-water mark disagree: one of them was restored from a copy, lost or edited."""


class SelfCheckFailed(SignerStopped):
    """A known-answer test at start came out differently."""


class TokenRefused(PermanentError):
    """The HSM refused: wrong PIN, missing token, missing key or mechanism."""


class SealBroken(PermanentError):
    """A sealed seed that does not open, or a record of other keys: another token's, another key-set's, or damaged."""


class NotProven(PermanentError):
    """A key-set without the genuine record of a ceremony whose backup was proven by a restore."""


class NotTested(PermanentError):
    """The backend's signatures were not tested, failed the test, or come from another version than was tested."""


class CeremonyStopped(PermanentError):
    """A ceremony or restore ended before its end: somebody declined, or parts don't agree."""


class BadConfiguration(PermanentError):
    """The configuration says something impossible; the message says what to write."""


class TokenLost(TransientError):
    """The HSM does not answer now; the same call may succeed when it is back."""


class WrongSignature(TransientError):
    """A backend returned a signature that does not verify. It was not released."""


class JournalUnavailable(TransientError):
    """The journal could not be committed, so nothing was released; the signer refuses work until restarted."""


class Withheld(SignerUnavailable):
    """It was signed before, but a freeze or the state of its keys keeps it back. Not refused: it may be out already."""


class ClockUnsteady(TransientError):
    """The clock went back or jumped forward; the message says what ends the suspension."""
