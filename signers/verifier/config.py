"""The verifier's configuration: one TOML file that only its owner may read, checked whole at start.

name = "verifier"                                   # as the bundle calls it
directory = "/var/lib/strongroom/verifier"          # state.sqlite, heartbeat.json
mark_path = "/var/lib/strongroom-marks/verdicts.mark" # in another directory, which is never restored with that one
bundle_path = "/etc/strongroom/bundle.json"         # a mailbox: what was adopted is kept in the state
trust_root_path = "/etc/strongroom/trust-root.json" # pinned at the first start
key_file = "/etc/strongroom/verifier.pem"           # Ed25519, PKCS#8 PEM, 0600
database_url = "postgresql://strongroom_read:...@.../strongroom"
[nodes.bitcoin]                                     # own nodes: not those of the online service
rpc_url = "http://user:password@127.0.0.1:8332"
rest_url = "http://127.0.0.1:8332"                  # Bitcoin only
# lowest_height = 860000                            # older uses of resources are not sought below it
[signers.hot]                                       # all signers of the bundle's key-sets and vaults
socket = "/run/strongroom/signer.sock"              # or: host, port, certificate, private_key, server_certificate
# log_key = "..."                                   # of a signer of vaults only: who signs its log, and
# member_of = ["btc-warm", "eth-warm"]              # which vaults those are; one of 2-of-3 may be silent then
[listen]                                            # as a signer's
unix = "/run/strongroom/verifier.sock"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from policies.canonical import Hex32, Name
from signers.client import SignerClient, TlsAddress, UnixAddress
from signers.config import ListenSection
from signers.errors import BadConfiguration
from signers.process.files import read_toml


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the sections: their addresses hold passwords, so they print as nothing."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}([secret])"


class NodeSection(_Section, frozen=True):
    """`[nodes.CHAIN]`: the verifier's own node."""

    rpc_url: str
    rest_url: str | None = None
    """Of a node of the Bitcoin family."""
    lowest_height: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Below it no use of a resource is sought that was used before the verifier heard of it."""


class SignerSection(_Section, frozen=True):
    """`[signers.NAME]`: where a signer listens."""

    socket: str | None = None
    host: str | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    certificate: str | None = None
    """PEM of the verifier's own certificate."""
    private_key: str | None = None
    """PEM of its key."""
    server_certificate: str | None = None
    """PEM of the signer's, which is pinned."""
    log_key: Hex32 | None = None
    """Ed25519 public key that signs its log, where the bundle names none: a signer of vaults only."""
    member_of: tuple[Name, ...] = ()
    """The vaults that it signs for, if it has keys of their members and of nothing else. Fewer of those than sign for a
    vault may be silent, and orders are found covered all the same."""

    def client(self) -> SignerClient:
        """The client. Raises BadConfiguration: neither a socket nor all of the TLS settings."""
        if self.socket is not None:
            return SignerClient(UnixAddress(Path(self.socket)))
        tls = (self.certificate, self.private_key, self.server_certificate)
        if self.host is None or self.port is None or None in tls:
            raise BadConfiguration(
                "a signer needs socket, or all of host, port, certificate, private_key, server_certificate"
            )
        certificate, private_key, server = (Path(path or "") for path in tls)
        return SignerClient(TlsAddress(self.host, self.port, certificate, private_key, server))


class VerifierConfig(_Section, frozen=True):
    """The whole file."""

    name: Name
    directory: str
    mark_path: str
    """The mark of the verdicts that were given; made at the first start."""
    bundle_path: str
    trust_root_path: str
    key_file: str
    database_url: str
    nodes: Annotated[dict[Name, NodeSection], msgspec.Meta(min_length=1)]
    signers: Annotated[dict[Name, SignerSection], msgspec.Meta(min_length=1)]
    listen: ListenSection
    demo_clock: str | None = None
    """File of a trial's clock (`policies.democlock`), on test networks only: its verdicts are fresh by it."""
    poll_seconds: Annotated[int, msgspec.Meta(ge=1, le=60)] = 2
    """Between two looks at nodes and signers. A verifier that does not ask a signer for minutes is missed there."""
    round_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 600
    """Between the ends and beginnings of rounds over all customers."""


def read_config(path: Path) -> VerifierConfig:
    """Read and check the configuration.

    Raises:
        BadConfiguration: says what to write where.
    """
    config = read_toml(path, VerifierConfig, "configuration", readers="owner")
    if Path(config.mark_path).resolve().is_relative_to(Path(config.directory).resolve()):
        raise BadConfiguration("mark_path: name a file outside of directory, or both are restored together")
    return config
