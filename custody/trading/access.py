"""Who asks, what for, and for whom: tokens, scopes, customers, rates.

Tokens are those of custody's API, made for this service's own audience. A token's nonce is remembered in memory
for as long as the token lives, and a token from before this process began is refused: so none is good twice,
over restarts too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from custody.trading.config import CallerSettings, TradingSettings
from custody.trading.failures import NotYourCustomer
from custody.web.errors import MissingScope
from custody.web.limits import RateLimit, Strangers
from policies.bundle import Bundle, Operator
from policies.token import Request, Token, TokenReplayed, Unauthenticated, authenticate

Scope = Literal["trading:read", "trading:write", "trading:admin"]
"""Of a caller of the bundle: read; place, cancel and move money; open and halt markets, turn kill switches."""

OPERATORS_DO: Final[Mapping[str, frozenset[Scope]]] = {
    "security": frozenset({"trading:read", "trading:admin"}),
    "treasury": frozenset({"trading:read", "trading:admin"}),
    "support": frozenset({"trading:read"}),
    "compliance": frozenset({"trading:read"}),
    "auditor": frozenset({"trading:read"}),
}
"""By role. No operator trades."""
_UNAUTHENTICATED_PER_SECOND: Final = 50
_NOBODY: Final = ("",)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who has shown a good token."""

    id: str
    scopes: frozenset[str]
    entry: CallerSettings
    """For whom it acts; an operator reads of all."""

    def need(self, scope: Scope) -> None:
        """Raises MissingScope."""
        if scope not in self.scopes:
            raise MissingScope(self.id, scope)

    def need_customer(self, customer: str) -> None:
        """Raises NotYourCustomer."""
        if not self.entry.acts_for(customer):
            raise NotYourCustomer(self.id, customer)


class Door:
    """Lets visitors in, or raises.

    Args:
        settings: of the process.
        bundle: the one in force now. Raises UntrustedBundle when there is none.
        clock: UNIX seconds.
    """

    def __init__(
        self, settings: TradingSettings, bundle: Callable[[], Bundle], clock: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._bundle = bundle
        self._clock = clock
        self._began = clock()
        self._nonces: dict[tuple[str, str], int] = {}
        self._tidied = self._began
        self._limits: dict[str, RateLimit] = {}
        self._strangers = Strangers(_UNAUTHENTICATED_PER_SECOND)

    def admit(self, authorization: str | None, request: Request, address: str) -> Visitor:
        """Check a token and count a request.

        Args:
            authorization: the header's value, if there was one.
            request: as it arrived.
            address: of the connection's other end.

        Raises:
            Unauthenticated: what is wrong with the token.
            TooManyRequests: the caller, or the address without a good token, is above its rate.
        """
        self._strangers.check(address)
        now = self._clock()
        try:
            token, who = authenticate(
                authorization, request, bundle=self._bundle(), audience=self._settings.audience, now=now
            )
            self._spend(token, now)
        except Unauthenticated:
            self._strangers.take(address)
            raise
        self._strangers.vouch(address)
        if isinstance(who, Operator):
            scopes: frozenset[str] = frozenset(s for role in who.roles for s in OPERATORS_DO[role])
            entry = CallerSettings(id=who.id, customers=("*",))
        else:
            scopes = frozenset(who.scopes)
            entry = self._settings.caller(who.id) or CallerSettings(id=who.id, customers=_NOBODY)
        visitor = Visitor(who.id, scopes, entry)
        self.count(visitor)
        return visitor

    def count(self, visitor: Visitor) -> None:
        """Count one more request or command of a visitor.

        Raises:
            TooManyRequests: it is above its rate.
        """
        limit = self._limits.get(visitor.id)
        if limit is None:
            limit = self._limits[visitor.id] = RateLimit(visitor.entry.per_second)
        limit.take(visitor.id)

    def stranger(self, address: str) -> None:
        """Count a request that needs no token. Raises TooManyRequests."""
        self._strangers.take(address)

    def _spend(self, token: Token, now: int) -> None:
        key = (token.caller, token.nonce)
        if key in self._nonces:
            raise TokenReplayed("this token's nonce was used before")
        if token.issued_at < self._began:
            raise TokenReplayed("this token is from before the trading core started: sign a new one")
        if now != self._tidied:
            self._tidied = now
            self._nonces = {known: end for known, end in self._nonces.items() if end >= now}
        self._nonces[key] = token.expires_at
