"""The charts of an experiment: metrics by segment, and how sessions and users are spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simulator.report.drawing import INK, LINE, MUTED, SERIES, SURFACE, WIDTH, bare, blank, signed, svg

# Letters of tick labels that fit side by side under a chart.
_LETTERS = 50


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
    with blank(height) as figure:
        axes = figure.add_axes((104 / WIDTH, bottom / height, 212 / WIDTH, step * len(rows) / height))
        bare(axes)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks([])
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for place, row in enumerate(rows):
            _forest_row(axes, place, row)
        # Zero is always in view: the question is on which side of it an interval lies.
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(signed))
        better, worse = "treatment better", "baseline better"
        left, right = (worse, better) if higher_is_better else (better, worse)
        figure.text(210 / WIDTH, 30 / height, axis, ha="center", va="center", color=MUTED)
        figure.text(104 / WIDTH, 10 / height, f"← {left}", ha="left", va="center", color=MUTED, fontsize=11)
        figure.text(316 / WIDTH, 10 / height, f"{right} →", ha="right", va="center", color=MUTED, fontsize=11)
        spoken = ". ".join(f"{row.label}: {row.text}" for row in rows)
        return svg(figure, ident, title, f"{spoken}. The table below gives every number.")


def bins(ident: str, title: str, labels: Sequence[str], shares: Mapping[str, Sequence[float]], axis: str) -> Markup:
    """Shares of sessions or users in bins, of both arms and the log side by side.

    Args:
        ident: Prefix of the drawing's ids, unique in the page.
        title: What a screen reader announces.
        labels: Of the bins; only as many are written as there is room for.
        shares: Per arm (or ``log``) the share in each bin, in percent.
        axis: Words under the axis.

    Returns:
        An ``<svg>`` element.
    """
    height = 280
    with blank(height) as figure:
        axes = figure.add_axes((46 / WIDTH, 50 / height, (WIDTH - 50) / WIDTH, (height - 86) / height))
        bare(axes)
        width = 0.8 / max(len(shares), 1)
        for index, (name, values) in enumerate(shares.items()):
            colour = SERIES.get(name, INK)
            places = [x - 0.4 + width * (index + 0.5) for x in range(len(labels))]
            # The log is hollow, so that no reader depends on colours to tell it from the arms.
            fill = SURFACE if name == "log" else colour
            axes.bar(places, values, width * 0.86, facecolor=fill, edgecolor=colour, linewidth=1.2, label=name)
        every = 1 + (sum(map(len, labels)) + len(labels)) // _LETTERS
        axes.set_xticks(range(0, len(labels), every), labels[::every])
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
        axes.set_xlabel(axis)
        figure.legend(loc="upper right", ncols=max(len(shares), 1), frameon=False, handlelength=1.2, borderpad=0)
        highest = ". ".join(
            f"{name}: most ({max(values):.1f} %) at {labels[list(values).index(max(values))]}"
            for name, values in shares.items()
        )
        return svg(figure, ident, title, f"{highest}. The table beside it gives every number.")


def _forest_row(axes: Axes, place: int, row: ForestRow) -> None:
    sides = axes.get_yaxis_transform()
    axes.text(-0.04, place, row.label, transform=sides, ha="right", va="center")
    colour = SERIES["treatment"]
    if row.value is None:
        axes.text(0.5, place, row.text, transform=sides, ha="center", va="center", color=MUTED, style="italic")
        return
    axes.text(1.04, place, row.text, transform=sides, ha="left", va="center", weight="bold")
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2.4, solid_capstyle="round")
    fill = SURFACE if row.exploratory else colour
    axes.plot([row.value], [place], "o", markersize=8, markerfacecolor=fill, markeredgecolor=colour, markeredgewidth=2)
