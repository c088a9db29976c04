"""The example's report page as a browser would find it."""

from functools import cache
from html.parser import HTMLParser

from simulator.experiment import Estimate
from simulator.report import numbers
from simulator.report.page import render
from tests.simulator.experiment_example import full

VOID = {"meta", "br", "hr", "img", "input", "link", "base"}


class Page(HTMLParser):
    """What a browser would find: tags with attributes, text, and the text of every table row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.style = ""
        self.unbalanced: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
            return
        self.text += data
        if "tr" in self.open:
            self.rows[-1] += f"{data} "


@cache
def page() -> str:
    return render(full())


@cache
def parsed() -> Page:
    return Page(page())


def written(estimate: Estimate, *, signed: bool = False) -> list[str]:
    """Every text that an estimate has to leave in its table row."""
    return [
        text for text in (numbers.value(estimate, signed=signed), numbers.interval(estimate, signed=signed)) if text
    ]


def written_in_one_row(*texts: str) -> bool:
    return any(all(text in row for text in texts) for row in parsed().rows)
