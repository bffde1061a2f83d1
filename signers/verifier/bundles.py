"""The bundle that the verifier believes: of the pinned quorum, and never an older one than before.

A new one waits here as it does at signers (`policies.bundle.waiting`), from when the verifier first saw it. It hears of
vetoes by the signers' logs, and checks the officers' signatures itself.

All that were ever adopted are kept: what was ordered or charged in the past is judged by what was in force then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from chains.errors import PermanentError
from policies.bundle import (
    Bundle,
    ReadBundle,
    SignedBundle,
    TrustRoot,
    UntrustedBundle,
    Vault,
    WalletEntry,
    read_signed,
)
from policies.bundle.waiting import acts_from
from policies.canonical import decoder_for, verify_ed25519
from policies.statements import SignedVeto, Veto
from signers.errors import BadConfiguration
from signers.verifier.state import State

SIGNING_SCOPE = "withdrawals:sign"


class Bundles:
    """The present bundle and all before it.

    Args:
        state: keeps them, and the pinned root.
        root_path: JSON of the `TrustRoot`; pinned at the first start, and never another one afterwards.
        path: JSON of the signed bundle; a mailbox, of which only what is newer is taken.
        now: tells the time, UNIX seconds.

    Raises:
        BadConfiguration: the root's file is missing, malformed, or not the one that was pinned.
        UntrustedBundle: there is no bundle that the quorum has signed.
        InvalidValue: the bundle is malformed.
    """

    def __init__(self, state: State, root_path: Path, path: Path, now: Callable[[], int]) -> None:
        self._state, self._path, self._now = state, path, now
        self._lock = threading.Lock()
        self._root = self._pinned(root_path)
        self._past = [
            decoder_for(SignedBundle).decode(raw).bundle
            for (raw,) in state.rows("SELECT signed FROM bundles ORDER BY version")
        ]
        self._seen: tuple[int, int, int] | None = None
        self._told = ""
        """Digest of the bundle that waits and can't be adopted any more."""
        if self._past:
            self.refresh(lambda _: None)
        else:
            self._adopt()

    def present(self) -> Bundle:
        """The bundle in force. Its expiry is checked by whoever uses it."""
        return self._past[-1]

    def refresh(self, report: Callable[[str], None]) -> None:
        """Adopt the file's bundle if the file changed and its version rose; else keep the present one.

        Args:
            report: told in a sentence why a changed file was not adopted.
        """
        with self._lock:
            try:
                self._promote()
                if self._stamp() != self._seen:
                    self._adopt()
            except (PermanentError, OSError) as error:
                report(f"the bundle in {self._path} is not adopted: {error}")

    def caller_keys(self, caller: str, scope: str = SIGNING_SCOPE) -> frozenset[str]:
        """Keys with which a caller may do what a scope allows (unless said otherwise: sign orders), or once could."""
        return frozenset(
            each.key
            for bundle in tuple(self._past)
            for each in bundle.callers
            if each.id == caller and scope in each.scopes
        )

    def operator_keys(self, operator: str) -> frozenset[str]:
        """Keys with which an operator signs what he does by hand, or once did."""
        return frozenset(
            each.key for bundle in tuple(self._past) for each in bundle.operators if each.id == operator
        )

    def wallets(self, wallet: str) -> tuple[WalletEntry, ...]:
        """All that this name has meant, the newest first; none, if no bundle ever had it."""
        return tuple(
            dict.fromkeys(
                each for bundle in reversed(self._past) for each in bundle.wallets if each.id == wallet
            )
        )

    def all_vaults(self) -> tuple[Vault, ...]:
        """All vaults that any bundle had."""
        return tuple(dict.fromkeys(each for bundle in self._past for each in bundle.vaults))

    def lowest_fee(self, asset: str) -> int:
        """Base units that a withdrawal of an asset has cost its customer at least at any time."""
        return min(self._fees(asset), default=0)

    def _fees(self, asset: str) -> Iterator[int]:
        for bundle in tuple(self._past):
            yield from (int(each.withdrawal_fee) for each in bundle.assets if each.id == asset)

    def _stamp(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _adopt(self) -> None:
        try:
            self._seen = self._stamp()
            raw = self._path.read_bytes()
        except OSError as error:
            raise BadConfiguration(f"bundle {self._path}: {error.strerror}; publish it there") from None
        read = read_signed(raw, self._root, now=self._now())
        bundle, digest = read.bundle, read.bundle.digest_hex()
        if self._past:
            present = self._past[-1]
            if bundle.version < present.version:
                raise UntrustedBundle(
                    f"version {bundle.version} is older than {present.version}, which was adopted before"
                )
            if bundle.version == present.version:
                if digest != present.digest_hex():
                    raise UntrustedBundle(f"another bundle of version {bundle.version} was adopted before")
                return
            if not self._is_due(read, digest, raw):
                return
        self._keep(bundle, digest, raw)

    def _keep(self, bundle: Bundle, digest: str, raw: bytes) -> None:
        self._state.write("INSERT INTO bundles VALUES (?, ?, ?)", bundle.version, digest, raw)
        self._past = [*self._past, bundle]

    def _is_due(self, read: ReadBundle, digest: str, raw: bytes) -> bool:
        """Whether a bundle may be adopted now; else it waits from now on, if it does not already."""
        row = self._state.row("SELECT since FROM waiting WHERE digest = ?", digest)
        since = self._now() if row is None else int(row[0])
        if acts_from(read, self._past[-1], first_seen=since) > self._now():
            if row is None:
                self._state.write(
                    "INSERT INTO waiting (digest, signed, since) VALUES (?, ?, ?)", digest, raw, since
                )
            return False
        veto = self._veto_of(digest)
        if veto is not None:
            raise UntrustedBundle(f"{veto.officer} has vetoed it: {veto.reason}")
        return True

    def _promote(self) -> None:
        """Adopt the bundle that has waited long enough, unless an officer has vetoed it."""
        row = self._state.row("SELECT digest, signed FROM waiting ORDER BY number DESC LIMIT 1")
        if row is None or self._told == row[0]:
            return
        digest, raw = str(row[0]), bytes(row[1])
        try:
            read = read_signed(raw, self._root, now=self._now())
            if read.bundle.version > self._past[-1].version and self._is_due(read, digest, raw):
                self._keep(read.bundle, digest, raw)
        except PermanentError:
            self._told = digest  # it won't become better; said once
            raise

    def _veto_of(self, digest: str) -> Veto | None:
        """An officer's veto of a bundle, if a signer's log tells of one."""
        for (body,) in self._state.rows("SELECT body FROM logs WHERE what = 'veto'"):
            try:
                signed = decoder_for(SignedVeto).decode(body)
                officer = self._past[-1].officer(signed.veto.officer)
                if signed.veto.bundle != digest or self._root.keys.get(officer.id) != officer.key:
                    continue
                verify_ed25519(officer.key, signed.veto.digest(), signed.signature)
                return signed.veto
            except (msgspec.MsgspecError, PermanentError):
                continue
        return None

    def _pinned(self, path: Path) -> TrustRoot:
        row = self._state.row("SELECT root FROM roots")
        try:
            raw = path.read_bytes()
            root = msgspec.json.decode(raw, type=TrustRoot)
        except (OSError, msgspec.MsgspecError) as error:
            raise BadConfiguration(f"trust root {path}: {error}") from None
        if row is None:
            self._state.write("INSERT INTO roots VALUES (1, ?)", raw)
        elif msgspec.json.decode(row[0], type=TrustRoot) != root:
            raise BadConfiguration(
                f"{path} is another trust root than the one that was pinned at the first start"
            )
        return root


decoder_for(SignedBundle)
