"""What follows from answers and from what people have decided: a person's word is never undone by a list."""

from __future__ import annotations

from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from custody.screening.judging import Cleared, Hit, Refused, Standing, Unknown, Waits, judge
from custody.screening.model import Answer, Finding, Subject, Word
from custody.screening.ports import Screening, ScreeningUnavailable

SUBJECT = Subject("x", "address")


def finding(provider: str = "a", reason: str = "why", version: str = "1") -> Finding:
    return Finding(provider, "address", reason, "source", version)


def answer(*findings: Finding, missing: tuple[tuple[str, str], ...] = ()) -> Answer:
    return Answer((Word("a", "1", findings),), missing)


class Says:
    def __init__(self, name: str, word: Word | None) -> None:
        self.name, self._word = name, word

    def ask(self, subject: Subject) -> Word:
        if self._word is None:
            raise ScreeningUnavailable("away")
        return self._word

    def close(self) -> None:
        pass


def test_a_hit_of_any_provider_is_a_hit_and_all_must_answer_for_clear() -> None:
    clear, bad, silent = (
        Says("a", Word("a", "1")),
        Says("b", Word("b", "1", (finding("b"),))),
        Says("c", None),
    )
    nobody = Standing()
    assert judge(nobody, Screening([clear]).ask(SUBJECT)) == Cleared()
    assert judge(nobody, Screening([clear, silent]).ask(SUBJECT)) == Unknown("c: away")
    assert judge(nobody, Screening([silent, clear, bad]).ask(SUBJECT)) == Hit((finding("b"),))


def test_where_nobody_is_asked_nothing_is_clear() -> None:
    assert judge(Standing(), Screening([]).ask(SUBJECT)) == Unknown("screening: no provider is configured")


def test_what_was_released_is_clear_in_a_newer_version_and_other_words_are_not() -> None:
    released = Standing(released=frozenset({finding().what}))
    assert judge(released, answer(finding(version="2"))) == Cleared()
    other = finding(reason="another")
    assert judge(released, answer(finding(), other)) == Hit((other,))
    elsewhere = finding(provider="b")
    assert judge(released, answer(elsewhere)) == Hit((elsewhere,))


def test_a_release_does_not_stand_in_for_a_provider_that_is_silent() -> None:
    released = Standing(released=frozenset({finding().what}))
    assert judge(released, answer(finding(), missing=(("c", "away"),))) == Unknown("c: away")


@given(st.lists(st.sampled_from([finding(), finding("b"), finding(reason="x")]), max_size=3), st.booleans())
def test_an_open_case_waits_and_a_refusal_stays_whatever_lists_say(
    found: list[Finding], silent: bool
) -> None:
    said = answer(*found, missing=(("c", "away"),) if silent else ())
    case = uuid4()
    assert judge(Standing(open=case), said) == Waits(case)
    assert judge(Standing(refused=case), said) == Refused(case)
    assert judge(Standing(open=uuid4(), refused=case), said) == Refused(case)


def test_records_name_providers_versions_and_who_was_silent() -> None:
    said = Answer((Word("a", "7"), Word("b", "8", (finding("b"),))), (("c", "away"),))
    assert [(each["provider"], each["verdict"], each.get("version")) for each in said.describe()] == [
        ("a", "clear", "7"),
        ("b", "hit", "8"),
        ("c", "unavailable", None),
    ]
