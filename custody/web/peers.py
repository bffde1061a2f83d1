"""From where a request comes, and whether operators may come from there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import Scope

from custody.config_tables import Network

Address = IPv4Address | IPv6Address


def peer(scope: Scope) -> str:
    """The address at the other end of the connection; empty if there is none."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def origin(scope: Scope, trusted_proxies: Sequence[Network]) -> str:
    """Where a request really comes from.

    That is the connection's other end. Only what a trusted proxy has added to `X-Forwarded-For` is believed, from the
    right: whatever stands left of the first address that is no trusted proxy, anybody may have written.

    Args:
        scope: of ASGI.
        trusted_proxies: networks of proxies that append to the header, never pass it on unseen.
    """
    found = peer(scope)
    if not among(found, trusted_proxies):
        return found
    headers = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    for text in reversed([each.strip() for each in ",".join(headers).split(",") if each.strip()]):
        if _read(text) is None:
            return text[:64]  # no address: in no network
        found = text
        if not among(found, trusted_proxies):
            break
    return found


def among(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of these networks. An IPv4 address that is written as IPv6 is what it is."""
    read = _read(address)
    return read is not None and any(
        read in network for network in networks if network.version == read.version
    )


def _read(text: str) -> Address | None:
    try:
        read = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return read.ipv4_mapped or read if isinstance(read, IPv6Address) else read
