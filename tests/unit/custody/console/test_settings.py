"""Settings of the client: from variables or a file, with a sentence for everything that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from custody.console.settings import ClientSettings, load
from custody.errors import InvalidConfiguration

ALL = {
    "STRONGROOM_API_URL": "http://127.0.0.1:1",
    "STRONGROOM_CALLER": "exchange",
    "STRONGROOM_CALLER_KEY": "/keys/exchange.pem",
    "STRONGROOM_AUDIENCE": "strongroom",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_variables_suffice() -> None:
    assert load(ALL) == ClientSettings(
        "http://127.0.0.1:1", "exchange", Path("/keys/exchange.pem"), "strongroom"
    )


def test_a_file_suffices_and_its_key_is_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    text = 'api_url = "https://x"\ncaller = "c"\ncaller_key = "c.pem"\naudience = "a"\n'
    (folder / "client.toml").write_text(text)
    found = load({"STRONGROOM_CLIENT": str(folder / "client.toml")})
    assert found == ClientSettings("https://x", "c", folder / "c.pem", "a")
    assert load({"STRONGROOM_CLIENT": str(folder / "client.toml"), "STRONGROOM_CALLER": "d"}).caller == "d"


def test_a_file_here_is_found(tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text('audience = "from the file"\n')
    del_audience = {name: value for name, value in ALL.items() if name != "STRONGROOM_AUDIENCE"}
    assert load(del_audience).audience == "from the file"


@pytest.mark.parametrize("missing", sorted(ALL))
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(InvalidConfiguration, match=missing):
        load({name: value for name, value in ALL.items() if name != missing})


def test_who_has_set_nothing_is_told_of_the_shell_file_of_a_trial() -> None:
    with pytest.raises(InvalidConfiguration, match="DIR/env"):
        load({})


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "client.toml").write_text('colour = "red"\n')
    with pytest.raises(InvalidConfiguration) as caught:
        load({"STRONGROOM_API_URL": "ftp://x"})
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize("content", [None, "= 1", b"\xff"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "other.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidConfiguration, match=r"other\.toml"):
        load({"STRONGROOM_CLIENT": str(path)})
