"""The drawing of a running series: its estimate over days inside a band that may be looked at every day."""

from datetime import date

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simulator.experiment import Series
from simulator.report import numbers
from simulator.report.drawing import INK, LINE, MUTED, SERIES, SURFACE, WIDTH, bare, blank, signed, svg


def draw(ident: str, series: Series) -> Markup:
    """One series.

    Args:
        ident: Prefix of the drawing's ids, unique in the page.
        series: With at least one point.

    Returns:
        An ``<svg>`` element.
    """
    height = 250
    first = date.fromisoformat(series.points[0].day)
    days = [(date.fromisoformat(point.day) - first).days for point in series.points]
    colour = SERIES["treatment"]
    with blank(height) as figure:
        axes = figure.add_axes((58 / WIDTH, 62 / height, (WIDTH - 76) / WIDTH, (height - 80) / height))
        bare(axes)
        axes.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        lows, highs = [p.low for p in series.points], [p.high for p in series.points]
        axes.fill_between(days, lows, highs, facecolor=colour, edgecolor=colour, alpha=0.18, linewidth=0)
        axes.plot(days, [p.estimate for p in series.points], color=colour, linewidth=2.4, label="running estimate")
        values = [p.value for p in series.points]
        # Hollow, so that a day is not taken for the running estimate.
        axes.plot(days, values, "o", markersize=6, markerfacecolor=SURFACE, markeredgecolor=INK, label="day alone")
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(signed))
        axes.margins(x=0.04)
        # Months and days of at most four of them: a year would not fit.
        shown = sorted({days[round(i * (len(days) - 1) / min(3, len(days) - 1))] for i in range(min(4, len(days)))})
        labels = {day: point.day[5:] for day, point in zip(days, series.points, strict=True)}
        axes.set_xticks(shown, [labels[day] for day in shown])
        what = "difference, pp" if series.unit == "pp" else "relative lift, %"
        figure.text(0.5, 26 / height, what, ha="center", va="center", color=MUTED)
        figure.legend(loc="lower center", ncols=2, frameon=False, handlelength=1.2, borderpad=0, fontsize=11)
        last = series.points[-1]
        return svg(
            figure,
            ident,
            f"{series.title} over days: {what}",
            f"{len(days)} days from {series.points[0].day} to {last.day}; the running estimate ends at "
            f"{numbers.number(last.estimate, series.unit, signed=True)}. The table below gives every number.",
        )
