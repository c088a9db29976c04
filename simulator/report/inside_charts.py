"""The charts of a treatment's inside: gains over single tasks, curves against flat, where the gates look."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simulator.report.drawing import INK, LINE, MUTED, SERIES, SURFACE, WIDTH, bare, blank, signed, svg

# A cell of the heat map under full weight; more would drown its number.
_STRONGEST = 0.5
# Narrower cells have no room for a number.
_CELL_WITH_NUMBER = 22

_TREATMENT, _FLAT = SERIES["treatment"], SERIES["log"]
_SOLID, _DASHED = (0, ()), (0, (3, 2))


@dataclass(frozen=True)
class GainBar:
    """One bar.

    Attributes:
        task: Written above the first bar of each task.
        label: The segment.
        text: The value as the table writes it; short words when there is none.
        value: In percent, None when there is none.
    """

    task: str
    label: str
    text: str
    value: float | None


@dataclass(frozen=True)
class Panel:
    """The curves of one task in one segment.

    Attributes:
        label: The segment.
        note: Written opposite to it.
        epochs: Passes over the window at each evaluation; of the treatment, then of flat.
        train: Losses on the rows that trained, the same; None where there is none.
        test: Losses on the held-out day, the same.
    """

    label: str
    note: str
    epochs: tuple[Sequence[float], Sequence[float]]
    train: tuple[Sequence[float | None], Sequence[float | None]]
    test: tuple[Sequence[float | None], Sequence[float | None]]


@dataclass(frozen=True)
class GateColumn:
    """One gate of the heat map: its place in the graph and the experts that it mixes."""

    title: str
    experts: tuple[str, ...]


@dataclass(frozen=True)
class GateRow:
    """One task in one segment; ``weights`` has a row of numbers per gate, None where the gate does not exist."""

    task: str
    label: str
    weights: tuple[tuple[float | None, ...], ...]


def gains(ident: str, title: str, bars: Sequence[GainBar], axis: str) -> Markup:
    """Gains over single-task models, one bar per task and segment.

    Args:
        ident: Prefix of the drawing's ids, unique in the page.
        title: What a screen reader announces.
        bars: From top to bottom, those of a task together.
        axis: Words under the axis.

    Returns:
        An ``<svg>`` element.
    """
    step, bottom = 19, 66
    places, heads, at = [], [], 0.0
    for number, bar in enumerate(bars):
        if number == 0 or bar.task != bars[number - 1].task:
            heads.append((at, bar.task))
            at += 1.15
        places.append(at)
        at += 1.0
    height = step * at + bottom
    with blank(height) as figure:
        axes = figure.add_axes((104 / WIDTH, bottom / height, 212 / WIDTH, step * at / height))
        bare(axes)
        axes.set_ylim(at - 0.5, -0.5)
        axes.set_yticks([])
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        sides = axes.get_yaxis_transform()
        for place, task in heads:
            axes.text(-104 / 212, place, task, transform=sides, ha="left", va="center", weight="bold", fontsize=12)
        for place, bar in zip(places, bars, strict=True):
            axes.text(-0.04, place, bar.label, transform=sides, ha="right", va="center", fontsize=12)
            if bar.value is None:
                axes.text(1.04, place, bar.text, transform=sides, va="center", fontsize=12, color=MUTED, style="italic")
                continue
            axes.text(1.04, place, bar.text, transform=sides, va="center", fontsize=12)
            fill = _TREATMENT if bar.value >= 0 else SURFACE
            axes.barh([place], [bar.value], 0.62, facecolor=fill, edgecolor=_TREATMENT, linewidth=1.2)
        _around_zero(axes, [bar.value for bar in bars if bar.value is not None])
        figure.text(210 / WIDTH, 30 / height, axis, ha="center", va="center", color=MUTED)
        figure.text(104 / WIDTH, 10 / height, "← sharing hurts", ha="left", va="center", color=MUTED, fontsize=11)
        figure.text(316 / WIDTH, 10 / height, "sharing helps →", ha="right", va="center", color=MUTED, fontsize=11)
        spoken = ". ".join(f"{bar.task}, {bar.label}: {bar.text}" for bar in bars)
        return svg(figure, ident, title, f"{spoken}. The table below gives every number.")


def _around_zero(axes: Axes, values: Sequence[float]) -> None:
    """Zero in view with room on both sides, also where all bars are on one."""
    farthest = max((abs(value) for value in values), default=0.0) or 1.0
    low, high = min((*values, -0.25 * farthest)), max((*values, 0.25 * farthest))
    room = 0.06 * (high - low)
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(signed))


def curves(ident: str, title: str, panels: Sequence[Panel], names: tuple[str, str], mark: float | None) -> Markup:
    """Curves of the treatment's kind and of flat, one panel per segment, each with a scale of its own.

    Args:
        ident: Prefix of the drawing's ids, unique in the page.
        title: What a screen reader announces.
        panels: From top to bottom.
        names: The treatment's name and flat's.
        mark: Passes that the day's own treatment made, None to mark nothing.

    Returns:
        An ``<svg>`` element.
    """
    top, each, gap, bottom, left = 44, 84, 34, 44, 50
    height = top + len(panels) * (each + gap) - gap + 22 + bottom
    with blank(height) as figure:
        for number, panel in enumerate(panels):
            above = top + 22 + number * (each + gap)
            axes = figure.add_axes(
                (left / WIDTH, 1 - (above + each) / height, (WIDTH - left - 8) / WIDTH, each / height)
            )
            bare(axes)
            last = number == len(panels) - 1
            _panel(axes, panel, mark, last=last)
            figure.text(4 / WIDTH, 1 - (above - 9) / height, panel.label, va="center", weight="bold", fontsize=12)
            figure.text((WIDTH - 8) / WIDTH, 1 - (above - 9) / height, panel.note, ha="right", va="center", fontsize=12)
            if last:
                axes.set_xlabel("passes over the training window")
        _legend(figure, height, names)
        spoken = ". ".join(f"{panel.label}: {panel.note}" for panel in panels)
        return svg(figure, ident, title, f"{spoken}. The table below gives every number.")


def _panel(axes: Axes, panel: Panel, mark: float | None, *, last: bool) -> None:
    for colour, epochs, train, test in zip((_TREATMENT, _FLAT), panel.epochs, panel.train, panel.test, strict=True):
        for losses, held_out in ((train, False), (test, True)):
            points = [(epoch, loss) for epoch, loss in zip(epochs, losses, strict=True) if loss is not None]
            if not points:
                continue
            style = _SOLID if held_out else _DASHED
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, linestyle=style)
            if held_out:
                best = min(points, key=lambda point: point[1])
                axes.scatter(*best, s=36, facecolor=SURFACE, edgecolor=colour, linewidth=1.8, zorder=3)
    if not axes.lines:
        axes.text(0.5, 0.5, "no loss", transform=axes.transAxes, ha="center", va="center", color=MUTED, style="italic")
    if mark is not None:
        axes.axvline(mark, color=MUTED, linewidth=1, linestyle=(0, (1, 3)))
    axes.margins(x=0.03, y=0.12)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:.3g}"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.tick_params(labelsize=11, labelbottom=last)


def _legend(figure: Figure, height: float, names: tuple[str, str]) -> None:
    """Two lines by hand: a legend's frame of its own does not know the width of the page's font."""
    for row, (what, style) in enumerate((("held-out day", _SOLID), ("training rows", _DASHED))):
        y = 1 - (12 + 20 * row) / height
        for column, (name, colour) in enumerate(zip(names, (_TREATMENT, _FLAT), strict=True)):
            x = 4 + 200 * column
            ends = [x / WIDTH, (x + 26) / WIDTH]
            figure.add_artist(Line2D(ends, [y, y], color=colour, linewidth=1.8, linestyle=style))
            figure.text((x + 34) / WIDTH, y, f"{name}, {what}", va="center", fontsize=12)


def heat_map(ident: str, title: str, columns: Sequence[GateColumn], rows: Sequence[GateRow]) -> Markup:
    """Mean gate weights, a row per task and segment, a column per expert.

    The tint is the weight against an even share: none at 0, half at the even share, full at twice the even share.

    Args:
        ident: Prefix of the drawing's ids, unique in the page.
        title: What a screen reader announces.
        columns: The gates from left to right.
        rows: From top to bottom, those of a task together.

    Returns:
        An ``<svg>`` element.
    """
    left, top, cell = 124, 74, 21
    experts = sum(len(column.experts) for column in columns)
    # Between two gates lies a third of a cell.
    wide = min((WIDTH - left) / (experts + (len(columns) - 1) / 3), 40.0)
    tasks = len({row.task for row in rows})
    height = top + cell * len(rows) + 6 * tasks
    with blank(height) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
        starts, x = [], float(left)
        for column in columns:
            starts.append(x)
            axes.text(x, 8, column.title, va="center", fontsize=10.5, color=MUTED)
            for number, expert in enumerate(column.experts):
                centre = x + wide * (number + 0.5)
                axes.text(centre, top - 6, expert, rotation=90, ha="center", va="bottom", fontsize=10.5)
            x += wide * (len(column.experts) + 1 / 3)
        y = float(top)
        for number, row in enumerate(rows):
            if number == 0 or row.task != rows[number - 1].task:
                y += 6 if number else 0
                axes.text(0, y + cell / 2, row.task, va="center", weight="bold", fontsize=11)
            axes.text(left - 6, y + cell / 2, row.label, ha="right", va="center", fontsize=11)
            for start, weights in zip(starts, row.weights, strict=True):
                _cells(axes, weights, (start, y), (wide, cell))
            y += cell
        known = [weight for row in rows for weights in row.weights for weight in weights if weight is not None]
        spoken = f"Weights lie between {min(known):.2f} and {max(known):.2f}" if known else "No weight"
        return svg(figure, ident, title, f"{spoken}. diagnostics.json gives every number.")


def _cells(axes: Axes, weights: Sequence[float | None], corner: tuple[float, float], size: tuple[float, float]) -> None:
    (x, y), (wide, cell) = corner, size
    for number, weight in enumerate(weights):
        if weight is None:
            continue
        tint = _STRONGEST * min(weight * len(weights) / 2, 1.0)
        place = (x + wide * number + 0.5, y + 0.5)
        box = Rectangle(place, wide - 1, cell - 1, facecolor=_TREATMENT, alpha=round(tint, 3), linewidth=0)
        axes.add_patch(box).set_clip_on(False)
        if wide >= _CELL_WITH_NUMBER:
            middle = (x + wide * (number + 0.5), y + cell / 2)
            axes.text(*middle, f"{weight:.2f}".lstrip("0"), ha="center", va="center", fontsize=10.5, color=INK)
