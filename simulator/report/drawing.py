"""How the report draws: inline SVG in which text stays text, colours are the page's own variables, bytes never vary."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulator.report.numbers import MINUS

# Drawn with placeholder colours, exchanged for CSS afterwards, so that one SVG serves the light and the dark theme.
INK, MUTED, LINE, SURFACE = "#010101", "#020202", "#030303", "#040404"
SERIES = {"treatment": "#050505", "baseline": "#060606", "log": "#070707"}
_CSS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    SURFACE: "var(--surface)",
    **{colour: f"var(--{name})" for name, colour in SERIES.items()},
}

# One unit of the drawing is one CSS pixel at full size; a phone shrinks it to about nine tenths.
WIDTH = 400
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mfh-report",
    "font.size": 13,
    "figure.dpi": 72,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.parse_math": False,
}


@contextmanager
def blank(height: float, width: float = WIDTH) -> Iterator[Figure]:
    """An empty drawing in the page's style; to be drawn and saved inside the block.

    Args:
        height: In units of the drawing.
        width: The same.

    Yields:
        The figure.
    """
    with matplotlib.style.context(["default", _STYLE]):
        yield Figure(figsize=(width / 72, height / 72))


def bare(axes: Axes) -> None:
    """Leave only the lower spine, and no tick marks."""
    axes.patch.set_visible(False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, pad=6)


def signed(tick: float, _: int) -> str:
    """A tick's label with its sign, for a matplotlib formatter."""
    return f"{tick:+g}".replace("-", MINUS) if tick else "0"


def svg(figure: Figure, ident: str, title: str, description: str) -> Markup:
    """The drawing as an element of the page.

    Args:
        figure: Drawn inside :func:`blank`.
        ident: Prefix of the drawing's ids, unique in the page.
        title: What a screen reader announces.
        description: What it reads on demand.

    Returns:
        An ``<svg>`` element without styles, inline ones included, scripts or addresses of its own.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    # A stylesheet, a namespace's address or an id inside an inline drawing belongs to the whole page.
    text = re.sub(r"<(style|metadata)\b.*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'style="([^"]*)"', lambda match: _attributes(match[1]), text)
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


def _attributes(style: str) -> str:
    """An inline style as presentation attributes: the page's policy lets no inline style through.

    The family is left out, so that text is in the page's own.
    """
    found = {}
    for part in filter(None, (one.strip() for one in style.split(";"))):
        name, _, value = part.partition(":")
        found[name.strip()] = value.strip()
    # Such as "italic 700 13px 'DejaVu Sans'": the words before the size are style or weight.
    if (font := found.pop("font", None)) is not None and (match := re.match(r"((?:[\w-]+ )*)([\d.]+px)", font)):
        found["font-size"] = match[2]
        for word in match[1].split():
            found["font-style" if word in ("italic", "oblique") else "font-weight"] = word
    found.pop("font-family", None)
    return " ".join(f'{name}="{escape(value)}"' for name, value in found.items())
