"""When a bundle that the quorum has signed acts: officers have time to veto it. Pure.

Each reader (signers, verifier, online side) notes when it first saw a bundle, and waits by its own clock. A bundle
that comes late to one of them waits there as long: it acts later, never sooner.
"""

from __future__ import annotations

from policies.bundle.document import Bundle
from policies.bundle.reading import ReadBundle


def acts_from(read: ReadBundle, present: Bundle, *, first_seen: int) -> int:
    """UNIX seconds from which a bundle acts unless it is vetoed.

    Args:
        read: the bundle, of a higher version than `present`.
        present: the bundle in force, which says how long the next one waits.
        first_seen: when the reader first saw it.
    """
    if read.by_all:
        return first_seen
    return max(read.bundle.in_force_from, first_seen + present.veto_seconds)
