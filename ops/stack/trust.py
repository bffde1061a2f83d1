"""The key ceremony of a trial installation: quorum, key-set in the HSM, callers, bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ops.devnet.softhsm import SoftHsmToken
from ops.stack.keys import Person, person
from ops.stack.keyset import make_signer
from ops.stack.quorum import CallerGrant, Quorum, make_bundle, make_quorum, publish
from policies.bundle import Bundle, TrustRoot, read_bundle

_READS: Final = ("customers:read", "deposits:read", "withdrawals:read", "ledger:read", "events:read")
_CALLERS: Final = {
    "exchange": (
        "trading",
        (*_READS, "customers:write", "addresses:write", "withdrawals:write", "withdrawals:sign"),
    ),
    "operator": ("operations", (*_READS, "operator")),
}


@dataclass(frozen=True, slots=True)
class Trust:
    """What a trial installation is built on."""

    quorum: Quorum
    callers: Mapping[str, Person]
    bundle: Bundle
    bundle_path: Path
    trust_root_path: Path


def prepare(directory: Path, token: SoftHsmToken) -> Trust:
    """Makes quorum, hot key-set, callers and bundle below `directory`, or finds them there.

    Raises:
        UntrustedBundle: the bundle that is there is not believed (expired, not signed by this quorum).
    """
    quorum = make_quorum(directory / "officers")
    callers = {
        name: person(directory / "callers", name, organisation=organisation)
        for name, (organisation, _) in _CALLERS.items()
    }
    bundle_path, root_path = directory / "bundle.json", directory / "trust-root.json"
    if not bundle_path.exists():
        grants = [CallerGrant(callers[name], scopes) for name, (_, scopes) in _CALLERS.items()]
        pinned = quorum.trust_root(minimum_version=1)
        keyset = make_signer(directory, token, pinned)
        made = make_bundle(version=1, keyset=keyset, callers=grants, quorum=quorum)
        publish(directory, quorum.sign(made), pinned)
    root = msgspec.json.decode(root_path.read_bytes(), type=TrustRoot)
    bundle = read_bundle(bundle_path.read_bytes(), root, now=int(time.time()))
    return Trust(quorum, callers, bundle, bundle_path, root_path)
