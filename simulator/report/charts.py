"""The report's charts as inline SVG: text stays text, colours are the page's own variables, the bytes never vary."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simulator.report.numbers import MINUS

# Drawn with placeholder colours, exchanged for CSS afterwards, so that one SVG serves the light and the dark theme.
_INK, _MUTED, _LINE, _SURFACE = "#010101", "#020202", "#030303", "#040404"
_SERIES = {"treatment": "#050505", "baseline": "#060606", "log": "#070707"}
_CSS = {
    _INK: "currentColor",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _SURFACE: "var(--surface)",
    **{colour: f"var(--{name})" for name, colour in _SERIES.items()},
}

# One unit of the drawing is one CSS pixel at full size; a phone shrinks it to about nine tenths.
_WIDTH = 400
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mfh-report",
    "font.size": 13,
    "figure.dpi": 72,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "text.parse_math": False,
}


@dataclass(frozen=True)
class ForestRow:
    """One line of a forest plot.

    Attributes:
        label: What the line is about.
        text: The value as the table writes it; short words when there is none.
        value: Point estimate, None when there is none.
        low: Lower end of the interval.
        high: Upper end of the interval.
        exploratory: Drawn hollow.
    """

    label: str
    text: str
    value: float | None
    low: float | None
    high: float | None
    exploratory: bool


def forest(ident: str, title: str, rows: Sequence[ForestRow], axis: str, *, higher_is_better: bool) -> Markup:
    """Point estimates and intervals against no effect.

    Args:
        ident: Prefix of the drawing's ids, unique in the page.
        title: What a screen reader announces.
        rows: From top to bottom.
        axis: Words under the axis.
        higher_is_better: Which side of zero favours the treatment.

    Returns:
        An ``<svg>`` element.
    """
    top, step, bottom = 12, 34, 66
    height = top + step * len(rows) + bottom
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(_WIDTH / 72, height / 72))
        axes = figure.add_axes((104 / _WIDTH, bottom / height, 212 / _WIDTH, step * len(rows) / height))
        _bare(axes)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks([])
        axes.axvline(0, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for place, row in enumerate(rows):
            _forest_row(axes, place, row)
        # Zero is always in view: the question is on which side of it an interval lies.
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(_signed))
        better, worse = "treatment better", "baseline better"
        left, right = (worse, better) if higher_is_better else (better, worse)
        figure.text(210 / _WIDTH, 30 / height, axis, ha="center", va="center", color=_MUTED)
        figure.text(104 / _WIDTH, 10 / height, f"← {left}", ha="left", va="center", color=_MUTED, fontsize=11)
        figure.text(316 / _WIDTH, 10 / height, f"{right} →", ha="right", va="center", color=_MUTED, fontsize=11)
        spoken = ". ".join(f"{row.label}: {row.text}" for row in rows)
        return _svg(figure, ident, title, f"{spoken}. The table below gives every number.")


def depth(ident: str, title: str, bins: Sequence[str], shares: Mapping[str, Sequence[float]]) -> Markup:
    """Share of sessions by number of impressions shown.

    Args:
        ident: Prefix of the drawing's ids, unique in the page.
        title: What a screen reader announces.
        bins: Labels of the depths.
        shares: Per arm (or ``log``) the share of sessions in each bin, in percent.

    Returns:
        An ``<svg>`` element.
    """
    height = 280
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(_WIDTH / 72, height / 72))
        axes = figure.add_axes((46 / _WIDTH, 50 / height, (_WIDTH - 50) / _WIDTH, (height - 86) / height))
        _bare(axes)
        width = 0.8 / max(len(shares), 1)
        for index, (name, values) in enumerate(shares.items()):
            colour = _SERIES.get(name, _INK)
            places = [x - 0.4 + width * (index + 0.5) for x in range(len(bins))]
            # The log is hollow, so that no reader depends on colours to tell it from the arms.
            fill = _SURFACE if name == "log" else colour
            axes.bar(places, values, width * 0.86, facecolor=fill, edgecolor=colour, linewidth=1.2, label=name)
        axes.set_xticks(range(len(bins)), bins)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
        axes.set_xlabel("impressions in the session")
        figure.legend(loc="upper right", ncols=max(len(shares), 1), frameon=False, handlelength=1.2, borderpad=0)
        highest = ". ".join(
            f"{name}: most sessions ({max(values):.1f} %) at {bins[list(values).index(max(values))]} impressions"
            for name, values in shares.items()
        )
        return _svg(figure, ident, title, f"{highest}. The table beside it gives every number.")


def _forest_row(axes: Axes, place: int, row: ForestRow) -> None:
    sides = axes.get_yaxis_transform()
    axes.text(-0.04, place, row.label, transform=sides, ha="right", va="center")
    colour = _SERIES["treatment"]
    if row.value is None:
        axes.text(0.5, place, row.text, transform=sides, ha="center", va="center", color=_MUTED, style="italic")
        return
    axes.text(1.04, place, row.text, transform=sides, ha="left", va="center", weight="bold")
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2.4, solid_capstyle="round")
    fill = _SURFACE if row.exploratory else colour
    axes.plot([row.value], [place], "o", markersize=8, markerfacecolor=fill, markeredgecolor=colour, markeredgewidth=2)


def _bare(axes: Axes) -> None:
    axes.patch.set_visible(False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, pad=6)


def _signed(tick: float, _: int) -> str:
    return f"{tick:+g}".replace("-", MINUS) if tick else "0"


def _svg(figure: Figure, ident: str, title: str, description: str) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    # A stylesheet, a namespace's address or an id inside an inline drawing belongs to the whole page.
    text = re.sub(r"<(style|metadata)\b.*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"(font: (?:[a-z]+ )*[\d.]+px) [^;\"]*", r"\1 var(--sans)", text)
    for placeholder, css in _CSS.items():
        text = text.replace(placeholder, css)
    text = re.sub(r'\bid="', f'id="{ident}-', text)
    text = re.sub(r"(url\(|href=\")#", rf"\1#{ident}-", text)
    text = re.sub(r"\n\s*", "\n", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None, "matplotlib writes a viewBox"
    head = (
        f'<svg role="img" aria-labelledby="{ident}-title {ident}-desc" {box.group()}>'
        f'<title id="{ident}-title">{escape(title)}</title><desc id="{ident}-desc">{escape(description)}</desc>'
    )
    return Markup(head + text[text.index(">") + 1 :])  # noqa: S704 - matplotlib escapes what it draws
