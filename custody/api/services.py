"""What the API is given: everything with an effect, behind few names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from custody.config_tables import LOOPBACK, Network
from custody.ports import Clock, Wake, system_clock, wake_nobody
from custody.storage.db import Database
from custody.storage.sealing import Keys
from custody.whitelist.lookalikes import ENDS, Ends
from policies.bundle import Bundle, TrustRoot
from signers.ports import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """Made by `custody.api.__main__` from the process's configuration, or by a test."""

    database: Database
    """With the role `strongroom_api`."""
    bundle: Callable[[], Bundle]
    """The bundle in force now. Raises UntrustedBundle when there is none that may be believed."""
    root: TrustRoot
    """The pinned quorum."""
    signer: Callable[[str], Signer]
    """The signer of a key-set id. Raises InvalidValue if none is configured."""
    members: Callable[[str], Mapping[str, Signer]]
    """The signers of a vault's members, by their ids in it; none where all of them sign offline."""
    audience: str
    """Our name: tokens made for another are refused."""
    wake: Wake = wake_nobody
    """Rung after the answer to a request that gave workers something to do."""
    broker: Callable[[], bool] | None = None
    """Whether what carries the bell answers; None where there is no bell to ring."""
    clock: Clock = system_clock
    requests_per_second: int = 2000
    """Most requests of one caller; twice as many in a burst."""
    unauthenticated_per_second: int = 50
    """Most requests of one address without a good token; twice as many in a burst. `/healthz` is free."""
    answer_seconds: int = 20
    """A request that is not answered by then is told that it is not: a database that hangs must not hang callers."""
    monitor_lag_seconds: int = 60
    """`/readyz` says no when a chain's monitor has not been heard of for longer."""
    sealing: Callable[[], Keys] | None = None
    """The keys of sealed columns; without them no personal data is taken in."""
    operator_networks: tuple[Network, ...] = LOOPBACK
    """From where operators may come."""
    trusted_proxies: tuple[Network, ...] = ()
    """Whose `X-Forwarded-For` is believed."""
    ends: Ends = ENDS
    """How much of an address people look at."""
    verifier_silent_seconds: int | None = None
    """The same when what a signer signed waits for a verifier's word for longer, see `custody.config`."""
