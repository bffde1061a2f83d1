"""Configuration: everything is checked at start, and every problem is a sentence that says what to write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from custody.config import Process, Settings, SocketSigner, TlsSigner, load
from custody.config_tables import HttpScreening, ScreeningSettings
from custody.errors import InvalidConfiguration

_PASSWORD = "correct-horse-battery"


@pytest.fixture
def good(tmp_path: Path) -> dict[str, str]:
    for name in ("bundle.json", "root.json"):
        (tmp_path / name).write_text("{}")
    return {
        "STRONGROOM_DATABASE_URL": f"postgresql://strongroom_worker:{_PASSWORD}@127.0.0.1:5432/strongroom",
        "STRONGROOM_REDIS_URL": f"redis://:{_PASSWORD}@127.0.0.1:6379/0",
        "STRONGROOM_BUNDLE_PATH": str(tmp_path / "bundle.json"),
        "STRONGROOM_TRUST_ROOT_PATH": str(tmp_path / "root.json"),
        "STRONGROOM_NODES": json.dumps(
            {
                "bitcoin-regtest": {
                    "rpc_url": f"http://user:{_PASSWORD}@127.0.0.1:18443",
                    "rest_url": "http://127.0.0.1:18443",
                    "zmq_url": "tcp://127.0.0.1:28332",
                }
            }
        ),
        "STRONGROOM_SCREENING": json.dumps({"elsewhere": "the exchange"}),
        "STRONGROOM_SIGNERS": json.dumps({"btc-hot": {"socket": "/run/strongroom/signer.sock"}}),
    }


def problems(process: Process, environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(InvalidConfiguration) as caught:
        load(process, environment)
    assert not caught.value.transient
    assert _PASSWORD not in str(caught.value)
    return caught.value.problems


def toml(path: Path, settings: str) -> dict[str, str]:
    path.write_text(settings)
    path.chmod(0o600)
    return {"STRONGROOM_CONFIG": str(path)}


def test_operators_come_from_this_host_unless_their_networks_are_named(good: dict[str, str]) -> None:
    settings = load(Process.WORKER, good)
    assert [str(each) for each in settings.operator_networks] == ["127.0.0.0/8", "::1/128"]
    assert settings.trusted_proxies == ()
    named = load(Process.WORKER, _set(operator_networks='["10.1.0.0/16", "fd00::/8"]')(good))
    assert [str(each) for each in named.operator_networks] == ["10.1.0.0/16", "fd00::/8"]
    assert load(Process.WORKER, _set(operator_networks="[]")(good)).operator_networks == ()


def test_a_worker_is_configured_by_variables(good: dict[str, str]) -> None:
    settings = load(Process.WORKER, good)
    assert settings.database_url.reveal() == good["STRONGROOM_DATABASE_URL"]
    assert settings.nodes["bitcoin-regtest"].rest_url == "http://127.0.0.1:18443"
    assert settings.nodes["bitcoin-regtest"].rpc_url.reveal().startswith("http://user:")
    assert settings.signers == {"btc-hot": SocketSigner(Path("/run/strongroom/signer.sock"))}
    assert settings.screening == ScreeningSettings((), 7, {}, "the exchange")
    assert settings.gather_seconds is None
    assert settings.verifier_silent_seconds is None
    assert (settings.lookalike_head, settings.lookalike_tail) == (4, 4)
    assert load(Process.WORKER, _set(lookalike_tail="6")(good)).lookalike_tail == 6
    assert load(Process.WORKER, _set(verifier_silent_seconds="7200")(good)).verifier_silent_seconds == 7200


def test_a_file_says_the_same_and_a_variable_wins_over_it(good: dict[str, str], tmp_path: Path) -> None:
    variables = toml(
        tmp_path / "api.toml",
        f"""
        database_url = "host=127.0.0.1 user=strongroom_api password={_PASSWORD} dbname=strongroom"
        redis_url = "unix:///run/redis.sock"
        bundle_path = "{tmp_path}/bundle.json"
        trust_root_path = "{tmp_path}/root.json"
        audience = "from-the-file"
        api_port = 8443
        [signers.btc-hot]
        host = "signer.internal"
        port = 7000
        server_certificate = "{tmp_path}/bundle.json"
        client_certificate = "{tmp_path}/bundle.json"
        client_key = "{tmp_path}/root.json"
        """,
    )
    settings = load(Process.API, variables | {"STRONGROOM_AUDIENCE": "from-the-variable"})
    assert (settings.audience, settings.api_port) == ("from-the-variable", 8443)
    assert isinstance(settings.signers["btc-hot"], TlsSigner)
    assert settings.signers["btc-hot"].port == 7000


def test_who_screens_is_a_table_of_lists_and_providers(good: dict[str, str], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    table = {
        "lists": [str(tmp_path), str(token)],
        "lists_valid_days": 3,
        "http": {
            "kyt": {"url": "https://kyt.example/v1", "token_path": str(token), "timeout_seconds": 9},
            "local": {"url": "http://127.0.0.1:9000/x", "clear_seconds": 0},
        },
    }
    found = load(Process.WORKER, good | {"STRONGROOM_SCREENING": json.dumps(table)}).screening
    assert (found.lists, found.lists_valid_days, found.elsewhere) == ((tmp_path, token), 3, "")
    assert found.http["kyt"] == HttpScreening("https://kyt.example/v1", token, None, 9, 900, 300)
    assert found.http["local"].clear_seconds == 0


def test_secrets_are_not_shown_by_repr_or_str(good: dict[str, str]) -> None:
    settings = load(Process.WORKER, good)
    for shown in (repr(settings), str(settings), f"{settings.database_url}", repr(settings.nodes)):
        assert _PASSWORD not in shown
    assert "[secret]" in repr(settings)


@pytest.mark.parametrize(
    ("process", "needed"),
    [
        (Process.API, {"database_url", "redis_url", "bundle_path", "trust_root_path", "signers", "audience"}),
        (Process.MONITOR, {"database_url", "bundle_path", "trust_root_path", "nodes", "screening"}),
        (Process.BEAT, {"redis_url"}),
        (Process.RECONCILE, {"database_url", "bundle_path", "trust_root_path", "nodes"}),
    ],
)
def test_each_process_needs_its_own_and_says_everything_that_is_missing_at_once(
    process: Process, needed: set[str]
) -> None:
    found = problems(process, {})
    assert {sentence.split(" ")[0] for sentence in found} == needed
    assert all("STRONGROOM_" in sentence for sentence in found)


def test_an_empty_environment_has_no_default_for_anything_secret_or_shared(good: dict[str, str]) -> None:
    settings: Settings = load(Process.BEAT, {"STRONGROOM_REDIS_URL": good["STRONGROOM_REDIS_URL"]})
    assert not settings.database_url
    assert settings.audience == ""


def _node(**changes: object) -> Callable[[dict[str, str]], dict[str, str]]:
    def change(good: dict[str, str]) -> dict[str, str]:
        nodes = json.loads(good["STRONGROOM_NODES"])
        nodes["bitcoin-regtest"] |= changes
        return good | {"STRONGROOM_NODES": json.dumps(nodes)}

    return change


def _set(**changes: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda good: good | {f"STRONGROOM_{name.upper()}": value for name, value in changes.items()}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_set(database_url="mysql://x"), "write postgresql://strongroom_worker:PASSWORD@HOST:PORT/DATABASE"),
        (_set(database_url="postgresql://h/db"), "write postgresql://strongroom_worker:"),
        (_set(database_url=f"postgresql://postgres:{_PASSWORD}@h/db"), "own role strongroom_worker"),
        (_set(redis_url="127.0.0.1:6379"), "write redis://"),
        (_set(redis_url="redis://h:port/0"), "write redis://"),
        (_set(bundle_path="bundle.json"), "absolute path of a file"),
        (_set(bundle_path="/nonexistent/bundle.json"), "there is no such file"),
        (_set(screening="{}"), "screening: write lists or http, or else elsewhere"),
        (_set(screening="no json"), "screening: write a table"),
        (_set(screening='{"elsewhere": "x", "lists": ["/tmp"]}'), "or else elsewhere"),
        (_set(screening='{"lists": ["/nonexistent"]}'), "there is no such file"),
        (_set(screening='{"lists": ["lists"]}'), "absolute paths"),
        (_set(screening='{"lists": ["/tmp"], "lists_valid_days": 0}'), "write a number, 1 to 366"),
        (_set(screening='{"list": ["/tmp"]}'), "screening.list is no setting"),
        (
            _set(screening='{"http": {"k": {"url": "http://kyt.example"}}}'),
            "screening.http.k.url: write https",
        ),
        (_set(screening='{"http": {"k": {"url": "https://u:p@kyt.example"}}}'), "no password in it"),
        (_set(screening='{"http": {"k": {"url": "https://h", "token": "x"}}}'), "http.k.token is no setting"),
        (
            _set(screening='{"http": {"k": {"url": "https://h", "token_path": "/no"}}}'),
            "a file that is there",
        ),
        (_set(screening='{"http": {"k": {"url": "https://h", "timeout_seconds": 31}}}'), "1 to 30"),
        (_set(screening='{"http": {"a b": {"url": "https://h"}}}'), "whose name is"),
        (_set(screening='{"http": {"lists": {"url": "https://h"}}}'), "whose name is"),
        (_set(sealing_keys_path="keys"), "sealing_keys_path: write the absolute path of a file"),
        (
            _set(travel_rule_outbox="/nonexistent"),
            "travel_rule_outbox: write the absolute path of a directory",
        ),
        (_set(gather_seconds="-1"), "write a number of seconds"),
        (_set(gather_seconds="3601"), "write a number of seconds"),
        (_set(operator_networks="127.0.0.1"), "operator_networks: write a list of networks"),
        (_set(operator_networks='["10.1.2.3/8"]'), "has host bits set"),
        (_set(trusted_proxies='["proxy.example"]'), "trusted_proxies: 'proxy.example'"),
        (_set(lookalike_head="1"), "write a number of characters, 2 to 16"),
        (_set(verifier_silent_seconds="59"), "write a number of seconds, 60 to 43200"),
        (_set(verifier_silent_seconds="43201"), "write a number of seconds, 60 to 43200"),
        (_set(verifier_silent_seconds="1h"), "write a number of seconds, 60 to 43200"),
        (_set(api_port="0"), "1 to 65535"),
        (_set(api_port="https"), "1 to 65535"),
        (_set(api_host="127.0.0.1 8080"), "host name or an IP"),
        (_set(audience="has blanks"), "1 to 64 of"),
        (_set(nodes="not json"), "one table for each chain"),
        (_set(nodes="{}"), "one table for each chain"),
        (_set(nodes='{"a b": {}}'), "is no chain id"),
        (_node(rpc_url=f"{_PASSWORD}@127.0.0.1"), "nodes.bitcoin-regtest.rpc_url: write http://USER"),
        (_node(rest_url=7), "nodes.bitcoin-regtest.rest_url: write http://HOST"),
        (_node(zmq_url="http://h"), "write tcp://HOST:PORT"),
        (_node(rest="http://h"), "nodes.bitcoin-regtest.rest is no setting"),
        (_set(signers='{"hot": {"socket": "relative"}}'), "absolute path of the signer's Unix socket"),
        (_set(signers='{"hot": {"host": "h", "port": 1}}'), "write socket, or all of host, port,"),
        (_set(signers='{"hot": {"socket": "/s", "port": 1}}'), "signers.hot.port is no setting"),
    ],
)
def test_a_bad_value_stops_the_start_with_a_sentence_that_says_what_to_write(
    good: dict[str, str], change: Callable[[dict[str, str]], dict[str, str]], sentence: str
) -> None:
    found = problems(Process.WORKER, change(good))
    assert any(sentence in each for each in found), found


def test_a_misspelt_field_in_the_file_is_named(good: dict[str, str], tmp_path: Path) -> None:
    found = problems(Process.WORKER, good | toml(tmp_path / "s.toml", 'databse_url = "x"\n'))
    assert any("databse_url is no setting" in sentence for sentence in found)


def test_a_file_that_everybody_can_read_is_refused(good: dict[str, str], tmp_path: Path) -> None:
    variables = toml(tmp_path / "s.toml", "api_port = 1\n")
    (tmp_path / "s.toml").chmod(0o644)
    assert any("chmod 600" in sentence for sentence in problems(Process.WORKER, good | variables))


@pytest.mark.parametrize("content", ["not toml", "a = \xff"])
def test_a_broken_file_is_said_to_be_broken(good: dict[str, str], tmp_path: Path, content: str) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(content.encode("latin-1"))
    path.chmod(0o600)
    found = problems(Process.WORKER, good | {"STRONGROOM_CONFIG": str(path)})
    assert any(str(path) in sentence for sentence in found)


def test_a_missing_file_is_said_to_be_missing(good: dict[str, str], tmp_path: Path) -> None:
    found = problems(Process.WORKER, good | {"STRONGROOM_CONFIG": str(tmp_path / "none.toml")})
    assert any("cannot be read" in sentence for sentence in found)


def test_an_empty_variable_names_no_file(good: dict[str, str]) -> None:
    assert load(Process.WORKER, good | {"STRONGROOM_CONFIG": ""}) == load(Process.WORKER, good)
