"""`strongroom freeze` and `strongroom policy lower|veto|publish`: what officers sign goes to all signers and online.

Signers are told directly, at the addresses that the workers' settings name (`STRONGROOM_OPERATOR_CONFIG`), and the
online side by its database. Where these settings are not at hand, `strongroom key` tells signers, and the API takes
statements (`POST /v1/statements`). Every one is asked, whatever the others answer; the same again changes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from chains.errors import InvalidValue, PermanentError, StrongroomError
from custody.config import Settings
from custody.console.acting import worker_settings
from custody.console.outcome import Exit, Output, outcome, output
from custody.console.policy import policy_app
from custody.console.root import AsJson, app
from custody.officers import service
from custody.officers.standing import Standing
from custody.officers.statements import Signed
from custody.ports import system_clock
from custody.storage.db import Database
from custody.wiring import read_trust_root, signer_client
from policies.bundle import SignedBundle, TrustRoot, read_signed
from policies.canonical import MAX_DOCUMENT_BYTES, decoder_for
from policies.keys import SigningKey, sign_freeze, sign_lowering, sign_veto
from policies.statements import Freeze, Lowering, SignedFreeze, SignedLowering, Veto
from signers.client import SignerClient
from signers.ports import Refused, SignerStatus, SignerUnavailable

ONLINE: Final = "online"
_COLUMNS: Final = ("where", "outcome", "detail")

Officer = Annotated[str, typer.Option("--officer", help="Your id in the bundle.")]
KeyFile = Annotated[Path, typer.Option("--key", help="Your private key: PKCS#8 PEM of mode 0600.")]
Why = Annotated[
    str, typer.Option("--reason", help="Why; in the logs of signers and the event feed.", prompt="Reason")
]


@dataclass(frozen=True, slots=True)
class _Told:
    """What one of them has answered."""

    where: str
    outcome: str
    detail: str
    code: Exit

    def row(self) -> Mapping[str, Any]:
        """For a table."""
        return {"where": self.where, "outcome": self.outcome, "detail": self.detail}


@app.command("freeze")
def freeze(
    scope: Annotated[
        str,
        typer.Argument(
            help="all, tier:hot|warm|cold, chain:ID, wallet:ID, asset:ID (as in the bundle), customer:ID."
        ),
    ],
    officer: Officer,
    key: KeyFile,
    reason: Why,
    *,
    as_json: AsJson = False,
) -> None:
    """Stop everything in a scope, at once and everywhere, as one officer. Only a higher bundle lifts it."""
    with _office(as_json=as_json) as office:
        signing = SigningKey.load(key)

        def signed(version: int) -> SignedFreeze:
            said = office.fields(officer, reason) | {"scope": scope, "bundle_version": version}
            return sign_freeze(Freeze.from_object(said), signing)

        signed(1)
        office.tell(lambda client, version: client.freeze(signed(version)), signed)


@policy_app.command("lower")
def lower(
    target: Annotated[
        str,
        typer.Argument(
            help="cap:TIER:ASSET:payment_below|window_cap, breaker:ID:value_cap, network:CHAIN:feerate_cap|fee_cap|"
            "fee_window_cap, rule:ID:at_most, caller|approver|verifier:ID:not_after, or longest_order_seconds."
        ),
    ],
    value: Annotated[
        str, typer.Argument(help="What it is from now on: base units, unit of account, UNIX seconds.")
    ],
    officer: Officer,
    key: KeyFile,
    reason: Why,
    *,
    as_json: AsJson = False,
) -> None:
    """Lower a number of the bundle, at once and everywhere, as one officer, until a higher bundle of the quorum."""
    with _office(as_json=as_json) as office:
        signing = SigningKey.load(key)

        def signed(version: int) -> SignedLowering:
            said = office.fields(officer, reason) | {
                "target": target,
                "value": value,
                "bundle_version": version,
            }
            return sign_lowering(Lowering.from_object(said), signing)

        signed(1)
        office.tell(lambda client, version: client.lower(signed(version)), signed)


@policy_app.command("veto")
def veto(
    bundle: Annotated[Path, typer.Argument(help="The file of the bundle that must not come into force.")],
    officer: Officer,
    key: KeyFile,
    reason: Why,
    *,
    as_json: AsJson = False,
) -> None:
    """Keep a bundle from coming into force anywhere, though the quorum has signed it, as one officer; for good."""
    with _office(as_json=as_json) as office:
        signing, digest = SigningKey.load(key), _read(bundle)[0].bundle.digest_hex()
        signed = sign_veto(Veto.from_object(office.fields(officer, reason) | {"bundle": digest}), signing)
        office.tell(lambda client, _: client.veto(signed), lambda _: signed)


@policy_app.command("publish")
def publish(
    bundle: Annotated[Path, typer.Argument(help="The bundle, signed by the quorum.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Hand a signed bundle to all signers, then to the online side. It comes into force, or waits, everywhere.

    Nothing is published online if a signer refuses it. A signer that does not answer is told later by the same command.
    """
    with _office(as_json=as_json) as office:
        signed, raw = _read(bundle)
        read_signed(raw, office.root, now=system_clock())
        office.publish(signed, raw)


class _Office:
    """The signers and the online side, as the workers' settings name them."""

    def __init__(self, settings: Settings, shown: Output) -> None:
        self._settings, self._shown = settings, shown
        self.root: TrustRoot = read_trust_root(settings.trust_root_path)
        # One daemon may hold several key-sets; it is told once.
        self._signers = {str(entry): (name, entry) for name, entry in sorted(settings.signers.items())}
        if not self._signers:
            raise InvalidValue("the workers' settings name no signer: who freezes must reach them")

    def fields(self, officer: str, reason: str) -> dict[str, Any]:
        """What every statement has."""
        return {"v": 1, "officer": officer, "reason": reason, "issued_at": system_clock()}

    def tell(self, act: Callable[[SignerClient, int], SignerStatus], signed: Callable[[int], Signed]) -> None:
        """Have all signers told, then the online side; show what each has answered, and end with a code.

        Args:
            act: tells one signer, whose bundle has this version.
            signed: the statement for a version of the bundle.
        """
        told = [
            self._signer(name, lambda client: act(client, client.status().bundle_version))
            for name in self._signers
        ]
        self._end([*told, self._online(signed)])

    def publish(self, signed: SignedBundle, raw: bytes) -> None:
        """Have all signers take a bundle; unless one refuses it, write it where the online side looks."""
        told = [self._signer(name, lambda client: client.deliver(signed)) for name in self._signers]
        if all(each.code is not Exit.REFUSED for each in told):
            _replace(self._settings.bundle_path, raw)
            detail = f"written to {self._settings.bundle_path}: its processes look at it within a second"
            told.append(_Told(ONLINE, "done", detail, Exit.OK))
        else:
            told.append(_Told(ONLINE, "not told", "a signer has refused it", Exit.REFUSED))
        self._end(told)

    def _signer(self, address: str, act: Callable[[SignerClient], SignerStatus]) -> _Told:
        name, entry = self._signers[address]
        where = f"signer of {name}"
        try:
            client = signer_client(entry)
            try:
                return _Told(where, "done", _stands(act(client)), Exit.OK)
            finally:
                client.close()
        except Refused as refused:
            return _Told(where, "refused", str(refused), Exit.REFUSED)
        except (SignerUnavailable, StrongroomError) as error:
            return _Told(where, "not available", str(error), Exit.UNAVAILABLE)

    def _online(self, signed: Callable[[int], Signed]) -> _Told:
        dsn = self._settings.database_url.reveal()
        try:
            with Database(dsn, application="strongroom-officer", pool_size=2) as database:
                bundle = Standing(self._settings.bundle_path, self.root, system_clock, lambda: database)()
                with database.transaction() as tx:
                    new = service.take(tx, signed(bundle.version), bundle, self.root)
        except StrongroomError as error:
            permanent = isinstance(error, PermanentError)
            code = Exit.REFUSED if permanent else Exit.UNAVAILABLE
            return _Told(ONLINE, "refused" if permanent else "not available", str(error), code)
        return _Told(ONLINE, "done", "acts within a second" if new else "was told before", Exit.OK)

    def _end(self, told: list[_Told]) -> None:
        self._shown.many([each.row() for each in told], _COLUMNS, none="Nobody was told.")
        codes = {each.code for each in told}
        worst = Exit.REFUSED if Exit.REFUSED in codes else max(codes)
        if worst is not Exit.OK:
            raise typer.Exit(int(worst))


@contextmanager
def _office(*, as_json: bool) -> Iterator[_Office]:
    shown = output(as_json=as_json)
    with outcome(shown):
        yield _Office(worker_settings(), shown)


def _stands(status: SignerStatus) -> str:
    """How a signer stands now, in a line."""
    said = [f"bundle {status.bundle_version}"]
    if status.waiting is not None:
        said.append(f"{status.waiting.version} waits until {_date(status.waiting.acts_from)}")
    said += [f"frozen {', '.join(status.frozen)}"] if status.frozen else []
    said += [f"lowered {', '.join(status.lowered)}"] if status.lowered else []
    return "; ".join(said)


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _read(path: Path) -> tuple[SignedBundle, bytes]:
    """A bundle's file. Raises InvalidValue."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}") from None
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise InvalidValue(f"{path}: {len(raw)} bytes; a bundle has at most {MAX_DOCUMENT_BYTES}")
    try:
        return decoder_for(SignedBundle).decode(raw), raw
    except (ValueError, UnicodeDecodeError) as error:  # msgspec's errors are ValueErrors
        raise InvalidValue(f"{path}: {error}; expected a signed bundle") from None


def _replace(path: Path, raw: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one. Raises InvalidValue."""
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_bytes(raw)
        os.replace(fresh, path)
    except OSError as error:
        raise InvalidValue(f"{path}: {error.strerror}; the signers have it: copy it there") from None
