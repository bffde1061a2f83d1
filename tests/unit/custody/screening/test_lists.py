"""Lists in files: what matches, what is no list, and what changes mean while a process runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from custody.screening.lists import GRACE_SECONDS, FileLists, parse_list
from custody.screening.model import Finding, Subject, normal
from custody.screening.ports import ScreeningUnavailable

NOON = 1_795_262_400  # 2026-11-21T12:00:00Z
DAY = 24 * 3600
EVM = "0xAbCdEf0123456789aBcDeF0123456789AbCdEf01"
BECH32 = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
BASE58 = "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"
TXID = "ab" * 32


def listing(*lines: str, date: str = "2026-11-21", version: str = "v1", end: str = "# end") -> str:
    head = f"# date: {date}\n# version: {version}\n# source: tests\n"
    return head + "\n".join(["address,chain,reason,source", *lines, end]) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bad.csv"


def lists(path: Path, clock: Callable[[], int] = lambda: NOON) -> FileLists:
    return FileLists("lists", [path], 7, clock)


def hit(provider: FileLists, address: str, chain: str = "x", **more: str) -> tuple[Finding, ...]:
    return provider.ask(Subject(chain, address, **more)).findings  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("listed", "asked", "found"),
    [
        (EVM, EVM.lower(), True),
        (EVM.lower(), EVM, True),
        (EVM.upper().replace("0X", "0x"), EVM, True),
        (BECH32.upper(), BECH32, True),
        (BASE58, BASE58, True),
        (BASE58.lower(), BASE58, False),
        (EVM[:-1] + "2", EVM, False),
        (BECH32, BECH32 + "q", False),
        (f" {BECH32} ", BECH32, True),
    ],
)
def test_addresses_match_exactly_where_letters_case_means_nothing_in_any_case(
    path: Path, listed: str, asked: str, found: bool
) -> None:
    path.write_text(listing(f"{listed},,why,"))
    assert bool(hit(lists(path), asked)) is found


@pytest.mark.parametrize("text", [TXID, TXID.upper(), f"{TXID}:1", f"{TXID}:1".upper()])
def test_a_list_may_name_a_transaction_or_one_output(path: Path, text: str) -> None:
    path.write_text(listing(f"{text},,stolen,"))
    provider = lists(path)
    assert hit(provider, BECH32, txid=TXID, resource=f"{TXID}:1")
    assert bool(hit(provider, BECH32, txid=TXID, resource=f"{TXID}:2")) is (":" not in text)


def test_sources_of_a_deposit_are_looked_up_too(path: Path) -> None:
    path.write_text(listing(f"{EVM},,sanctioned,OFAC"))
    word = lists(path).ask(Subject("x", BECH32, TXID, f"{TXID}:log:1", (EVM,)))
    assert word.findings == (Finding("lists", EVM.lower(), "sanctioned", "OFAC", "v1"),)
    assert word.version == "bad v1"


def test_an_entry_of_a_chain_says_nothing_of_others_and_every_line_is_a_finding(path: Path) -> None:
    path.write_text(listing(f"{EVM},ethereum,one,A", f"{EVM},,two,", f'{EVM},ethereum,"three, or so",C'))
    provider = lists(path)
    assert [each.reason for each in hit(provider, EVM, "ethereum")] == ["one", "two", "three, or so"]
    assert [(each.reason, each.source) for each in hit(provider, EVM, "polygon")] == [("two", "tests")]


def test_comments_blank_lines_and_columns_in_any_order_are_fine(path: Path) -> None:
    path.write_text(f"# date: 2026-11-20\n\nreason,address\n# not this one: x\nwhy,{BECH32}\n\n# End \n\n")
    [finding] = hit(lists(path), BECH32)
    assert (finding.reason, finding.source, finding.version) == ("why", "bad", "2026-11-20")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "last line is not `# end`"),
        (listing(f"{BECH32},,,", end=""), "last line is not `# end`"),
        ("# date: 2026-11-20\n# end\n", "columns' names is missing"),
        ("address\n# end\n", "write `# date"),
        (listing(date="yesterday"), "write `# date"),
        ("# date: 2026-11-20\nbc1q,x\n# end\n", "bad:2: write the columns' names"),
        ("# date: 2026-11-20\naddress,address\n# end\n", "bad:2: write the columns' names"),
        ("# date: 2026-11-20\naddress,colour\n# end\n", "bad:2: write the columns' names"),
        (listing(f"{BECH32},,"), "bad:5: 3 columns, expected 4"),
        (listing(",,why,"), "bad:5: the address is empty"),
        (listing(f'{BECH32},,"half'), "bad:5: unexpected end of data"),
    ],
)
def test_what_is_no_whole_list_is_refused_with_the_line(text: str, sentence: str) -> None:
    with pytest.raises(InvalidValue, match=sentence.replace("'", ".")):
        parse_list(text, "bad")


@given(st.integers(0, 200))
def test_no_beginning_of_a_list_is_taken_for_the_list(cut: int) -> None:
    whole = listing(*(f"{BECH32}{n},,why," for n in range(3))).rstrip()
    part = whole[: max(0, len(whole) - 1 - cut)]
    with pytest.raises(InvalidValue):
        parse_list(part, "bad")


def test_a_changed_list_is_in_force_at_the_next_question(path: Path) -> None:
    path.write_text(listing())
    provider = lists(path)
    assert hit(provider, BECH32) == ()
    path.write_text(listing(f"{BECH32},,why,", version="v2"))
    assert [each.version for each in hit(provider, BECH32)] == ["v2"]
    path.write_text(listing(f"{BASE58},,why,", version="v3"))
    os.utime(path, ns=(1, 1))
    assert hit(provider, BECH32) == ()


def test_a_half_written_list_never_empties_the_one_before_and_after_a_minute_nothing_is_said(
    path: Path,
) -> None:
    now = [NOON]
    whole = listing(f"{BECH32},,why,")
    path.write_text(whole)
    provider = lists(path, lambda: now[0])
    assert hit(provider, BECH32)
    for half in ("", whole[:40], whole[:-8]):
        path.write_text(half)
        assert hit(provider, BECH32), half
    path.unlink()
    assert hit(provider, BECH32)
    now[0] += GRACE_SECONDS
    with pytest.raises(ScreeningUnavailable):
        hit(provider, BECH32)
    path.write_text(whole)
    assert hit(provider, BECH32)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", listing(end="").encode()])
def test_without_a_list_to_begin_with_there_is_no_answer(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScreeningUnavailable):
        hit(lists(path), BECH32)


def test_a_list_that_is_too_old_or_of_the_future_is_no_answer(path: Path) -> None:
    path.write_text(listing(date="2026-11-21"))
    now = [NOON]
    provider = lists(path, lambda: now[0])
    for moment, good in (
        (NOON - DAY, True),
        (NOON - 2 * DAY, False),
        (NOON + 6 * DAY, True),
        (NOON + 7 * DAY, False),
    ):
        now[0] = moment
        if good:
            assert hit(provider, BECH32) == ()
        else:
            with pytest.raises(ScreeningUnavailable, match="2026-11-21"):
                hit(provider, BECH32)


def test_a_directory_is_all_its_lists_and_an_empty_one_is_no_answer(tmp_path: Path) -> None:
    provider = lists(tmp_path)
    with pytest.raises(ScreeningUnavailable, match="there is no list"):
        hit(provider, BECH32)
    (tmp_path / "a.csv").write_text(listing())
    (tmp_path / "notes.txt").write_text(BECH32)
    assert hit(provider, BECH32) == ()
    (tmp_path / "b.csv").write_text(listing(f"{BECH32},,why,", version="7"))
    word = provider.ask(Subject("x", BECH32))
    assert (word.version, len(word.findings)) == ("a v1, b 7", 1)
    (tmp_path / "c.csv").write_text("half")
    with pytest.raises(ScreeningUnavailable, match=r"c\.csv"):
        hit(provider, BECH32)


@given(st.text(max_size=90))
def test_normal_forms_are_their_own(text: str) -> None:
    assert normal(normal(text)) == normal(text)
