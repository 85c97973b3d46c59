"""Charts as SVG, without scripts and styles of their own: the style sheet has the colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

__all__ = ["Bar", "bar_chart", "shown"]

WIDTH = 720
HEIGHT = 180
LEFT = 88
BOTTOM = 22
TOP = 8
LINES = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart: its value, ``None`` for none, and its label below and in words."""

    value: Decimal | None
    label: str
    title: str


def bar_chart(bars: Sequence[Bar], *, id: str, title: str) -> SafeString:
    """Return a chart with a bar for each day or group, with an axis from 0."""
    top = _round_up(max((bar.value for bar in bars if bar.value is not None), default=Decimal(0)))
    room = HEIGHT - TOP - BOTTOM
    step = Decimal(WIDTH - LEFT) / max(1, len(bars))
    grid = format_html_join(
        "",
        '<line class="oou-grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text class="oou-axis" x="{}" y="{}" text-anchor="end">{}</text>',
        (
            (LEFT, WIDTH, y, y, LEFT - 6, y + 4, shown(top * number / LINES))
            for number in range(LINES + 1)
            for y in [round(TOP + room - room * number / LINES, 1)]
        ),
    )
    columns = format_html_join(
        "",
        '<g><title>{}</title><rect class="oou-bar" x="{}" y="{}" width="{}" height="{}"/></g>',
        (
            (
                bar.title,
                round(LEFT + step * number + step / 8, 2),
                round(TOP + room - height, 2),
                round(step * 3 / 4, 2),
                round(height, 2),
            )
            for number, bar in enumerate(bars)
            if bar.value is not None
            for height in [Decimal(room) * bar.value / top if top else Decimal(0)]
        ),
    )
    every = max(1, -(-len(bars) // 12))
    labels = format_html_join(
        "",
        '<text class="oou-axis" x="{}" y="{}" text-anchor="middle">{}</text>',
        (
            (round(LEFT + step * number + step / 2, 2), HEIGHT - 6, bar.label)
            for number, bar in enumerate(bars)
            if number % every == 0
        ),
    )
    return format_html(
        '<svg class="oou-chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{}">'
        '<title id="{}">{}</title>{}{}{}</svg>',
        WIDTH,
        HEIGHT,
        id,
        id,
        title,
        grid,
        columns,
        labels,
    )


def _round_up(value: Decimal) -> Decimal:
    """Return the least of 1, 2, 4, 5, 8 and 10 times a power of ten that is not less than
    ``value``."""
    if value <= 0:
        return Decimal(1)
    power = Decimal(10) ** value.adjusted()
    return next(power * each for each in (1, 2, 4, 5, 8, 10) if power * each >= value)


def shown(value: Decimal | int | None) -> str:
    """Return a number for people, in their language; a dash for ``None``."""
    if value is None:
        return "–"
    text = f"{Decimal(value).normalize():f}"
    places = len(text.partition(".")[2])
    return number_format(Decimal(text), decimal_pos=places, force_grouping=True)
