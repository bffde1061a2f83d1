"""Where a request comes from: the connection's end, and what a trusted proxy adds to a header."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from custody.web.peers import among, origin

PROXIES = (ip_network("10.0.0.0/24"),)


def scope(client: str, *forwarded: str) -> dict[str, object]:
    return {
        "client": (client, 1),
        "headers": [(b"x-forwarded-for", each.encode()) for each in forwarded],
    }


@pytest.mark.parametrize(
    ("client", "forwarded", "expected"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("127.0.0.1",), "192.0.2.1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("192.0.2.7",), "192.0.2.7"),
        ("10.0.0.1", ("127.0.0.1, 192.0.2.7",), "192.0.2.7"),
        ("10.0.0.1", ("127.0.0.1", "192.0.2.7, 10.0.0.9"), "192.0.2.7"),
        ("10.0.0.1", ("127.0.0.1, nonsense",), "nonsense"),
        ("10.0.0.1", ("127.0.0.1:80",), "127.0.0.1:80"),
    ],
)
def test_only_what_trusted_proxies_added_is_believed(
    client: str, forwarded: tuple[str, ...], expected: str
) -> None:
    assert origin(scope(client, *forwarded), PROXIES) == expected


def test_a_header_is_nothing_where_no_proxy_is_trusted() -> None:
    assert origin(scope("192.0.2.1", "127.0.0.1"), ()) == "192.0.2.1"


@pytest.mark.parametrize(
    ("address", "inside"),
    [("127.0.0.9", True), ("::ffff:127.0.0.1", True), ("::1", False), ("", False), ("localhost", False)],
)
def test_an_address_is_in_a_network_however_it_is_written(address: str, inside: bool) -> None:
    assert among(address, [ip_network("127.0.0.0/8")]) is inside
