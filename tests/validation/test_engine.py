"""Great Expectations agrees with our own verdicts, and its pages are harmless whatever they quote."""

from html.parser import HTMLParser

import pytest

from components.validation.engine import POLICY, checkpoint
from components.validation.outcome import Outcome, harmless, within

pytestmark = pytest.mark.integration

HOSTILE = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "formula": '=HYPERLINK("http://evil","x")',
    "template": "$column ${row} {{ 7 * 7 }} `x`",
    "right to left": "safe\u202etxt.exe\u202c \u05d0\u05d1\u05d2",
    "terminal": "\x1b[2J\x00\x07\r\nnext line",
    "megabyte": "A" * 1_000_000,
}


class Tags(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def outcomes() -> list[Outcome]:
    limits = [(None, None), (0.0, None), (None, 1.0), (0.0, 1.0), (0.5, 0.5)]
    observed = [None, -1.0, 0.0, 0.5, 1.0, 1.0000001, float("nan"), float("inf"), 1e300]
    return [
        within("log", f"case {i} {j}", value, low, high, rule="a test", level=("fail", "warn", "refuse")[(i + j) % 3])
        for i, (low, high) in enumerate(limits[1:])
        for j, value in enumerate(observed)
    ]


def test_great_expectations_and_our_own_verdict_agree() -> None:
    ours = outcomes()
    judged, page = checkpoint("validation_log", "all cases", ours)
    assert judged == ours
    assert {one.success for one in judged} == {True, False}
    assert page.count("<html") == 1


def test_a_verdict_that_great_expectations_does_not_share_fails() -> None:
    good = within("log", "rows", 5, low=1, rule="a test", level="warn")
    bad = Outcome(**{**good.__dict__, "low": 9.0})
    (judged,), _ = checkpoint("validation_log", "a lie", [bad])
    assert (judged.success, judged.level) == (False, "fail")
    assert "disagrees" in judged.detail


def test_two_expectations_of_one_name_are_refused() -> None:
    one = within("log", "rows", 5, low=1, rule="a test")
    with pytest.raises(ValueError, match="rows"):
        checkpoint("validation_log", "twice", [one, one])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_become_plain(name: str) -> None:
    plain = harmless(HOSTILE[name])
    assert len(plain) < 2_500
    assert plain.isprintable()
    assert not set(plain) & set('<>&"`$')
    assert plain[:1] not in ("=", "+", "-", "@")
    assert plain.isascii() or name == "megabyte"


def test_plain_texts_stay_as_they_are() -> None:
    assert harmless("feed, Straße, 東京 50 %") == "feed, Straße, 東京 50 %"


def test_a_page_that_quotes_hostile_texts_does_nothing() -> None:
    quoted = [
        within("log", harmless(f"share[{text}]", 80), 1.0, high=0, rule=harmless(text), detail=text)
        for text in HOSTILE.values()
    ]
    _, page = checkpoint("validation_log", "hostile", quoted)
    assert len(page) < 1_000_000
    tags = Tags()
    tags.feed(page)
    policies = [a["content"] for tag, a in tags.found if tag == "meta" and a.get("http-equiv")]
    assert policies == [POLICY]
    # The policy is the first thing in the head, before anything that could be fetched or run.
    assert page.index("Content-Security-Policy") < page.index("<script")
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert not [
        a for tag, a in tags.found if tag in ("img", "span", "div", "td") and any(k.startswith("on") for k in a)
    ]
