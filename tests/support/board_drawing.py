"""A board as a picture: its own layout, titles, units and thresholds, filled with a real Prometheus's answers.

Not Grafana's rendering, which was not available; what a panel asks and how its answer looks can be judged from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from tests.servers.prometheus import Prometheus
from tests.support.board_queries import Asked, answer, asked

RATE_INTERVAL = "20s"
_WIDTH = 15.0
_UNIT = 0.3
"""Inches: of the whole picture, and of a row of the grid."""

_COLORS = ("#3274d9", "#56a64b", "#e0752d", "#b877d9", "#e02f44", "#1f9ea8", "#c4a000", "#7a7a7a", "#8f3bb8", "#37872d")
_MARKS = {"green": "#37872d", "orange": "#d9730d", "red": "#c4162a"}
_MOST = 8
_MARGIN = 0.007
"""From where lines end to where their panel does, as a share of the picture."""


_Box = tuple[float, float, float, float]
"""Left, bottom, width and height, as shares of the picture."""

_Answers = list[tuple[Asked, list[dict[str, Any]]]]
_Asking = tuple[Prometheus, tuple[float, float]]


def draw(board: dict[str, Any], prometheus: Prometheus, file: Path, start: float, end: float) -> None:
    """Draw it into a PNG of few colours."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    height = rows * _UNIT + 0.7
    figure = Figure(figsize=(_WIDTH, height), facecolor="white", dpi=92)
    figure.text(0.012, 1 - 0.26 / height, board["title"], fontsize=14, weight="bold", va="center")
    figure.text(
        0.988,
        1 - 0.26 / height,
        shorten(board["description"], 150, placeholder=" …"),
        fontsize=8,
        color="#666666",
        va="center",
        ha="right",
    )
    for panel in board["panels"]:
        box = _box(panel, height)
        if panel["type"] == "row":
            figure.text(
                0.012,
                box[1] + box[3] / 2,
                f"▾ {panel['title']}",
                fontsize=10,
                weight="bold",
                color="#333333",
                va="center",
            )
            continue
        asks = [one for one in asked(board, RATE_INTERVAL) if one.panel is panel]
        answers = [(one, answer(prometheus, one, start, end, max(1.0, (end - start) / 200))) for one in asks]
        _panel(figure, panel, box, answers, asking=(prometheus, (start, end)))
    with BytesIO() as picture:
        figure.savefig(picture, format="png")
        file.parent.mkdir(parents=True, exist_ok=True)
        _fewer_colours(Image.open(picture).convert("RGB")).save(file, optimize=True)


def _fewer_colours(picture: Image.Image) -> Image.Image:
    """The picture in 200 colours of its own, and in those of lines and marks: thin as these are, they would not be among the 200."""
    ours = [int(color[at : at + 2], 16) for color in (*_COLORS, *_MARKS.values()) for at in (1, 3, 5)]
    most = picture.quantize(200, dither=Image.Dither.NONE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(ours + most[:600])
    few = picture.quantize(palette=palette, dither=Image.Dither.NONE)
    return _on_white(few)


def _on_white(few: Image.Image) -> Image.Image:
    """Paper is white again, which came out as the mean of all that is nearly so."""
    colours = few.getpalette() or []
    paper: Any = few.getpixel((0, 0))  # an index, in a picture of this mode
    colours[3 * paper : 3 * paper + 3] = [255, 255, 255]
    few.putpalette(colours)
    return few


def _box(panel: dict[str, Any], height: float) -> _Box:
    at = panel["gridPos"]
    left, width = at["x"] / 24, at["w"] / 24
    top = 0.55 + at["y"] * _UNIT
    return left, 1 - (top + at["h"] * _UNIT) / height, width, at["h"] * _UNIT / height


def _panel(figure: Figure, panel: dict[str, Any], box: _Box, answers: _Answers, *, asking: _Asking) -> None:
    left, bottom, width, height = box
    gap_x, gap_y = 0.004, 0.05 / figure.get_figheight()
    frame = figure.add_axes((left + gap_x, bottom + gap_y, width - 2 * gap_x, height - 2 * gap_y))
    frame.set_xticks([])
    frame.set_yticks([])
    for spine in frame.spines.values():
        spine.set_color("#d0d0d0")
    title = 0.25 / figure.get_figheight()
    figure.text(
        left + 2.2 * gap_x,
        bottom + height - gap_y - title / 2,
        panel["title"],
        fontsize=8.5,
        weight="bold",
        va="center",
    )
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    inside = (
        left + 0.045,
        bottom + 0.62 / figure.get_figheight(),
        width - 0.056,
        height - gap_y - title - 0.72 / figure.get_figheight(),
    )
    if panel["type"] == "timeseries":
        _graph(figure.add_axes(inside), panel, answers, unit, asking=asking)
    elif panel["type"] == "stat":
        value = answers[0][1]
        number = float(value[0]["value"][1]) if value else math.nan
        figure.text(left + width / 2, bottom + (height - title) / 2, shown(round(number) if unit == "short" else number, unit), fontsize=20, ha="center", va="center", color=_color(panel, number))  # fmt: skip
    elif panel["type"] == "bargauge":
        _bars(figure, panel, box, answers, unit=unit)
    else:
        _table(figure, panel, box, answers)


def named(legend: str, labels: dict[str, str]) -> str:
    """A series' name, as Grafana makes it of its labels."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend).strip() or "all"


def _graph(axes: Axes, panel: dict[str, Any], answers: _Answers, unit: str, *, asking: _Asking) -> None:
    prometheus, span = asking
    stacked = panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal"
    lines = [(named(one.legend, series["metric"]), dict(_points(series))) for one, found in answers for series in found]
    lines.sort(key=lambda line: -max((value for value in line[1].values() if not math.isnan(value)), default=0))
    times = sorted({at for _, points in lines for at in points})
    floor = [0.0] * len(times)
    for number, (name, points) in enumerate(lines):
        color = _COLORS[number % len(_COLORS)]
        label = name if number < _MOST else None
        if stacked:
            above = [
                low + (points.get(at, 0.0) if not math.isnan(points.get(at, 0.0)) else 0.0)
                for at, low in zip(times, floor, strict=True)
            ]
            axes.fill_between(times, floor, above, color=color, alpha=0.35, linewidth=0)
            axes.plot(times, above, color=color, linewidth=0.9, label=label)
            floor = above
        else:
            axes.plot(list(points), list(points.values()), color=color, linewidth=1.1, label=label)
    top = panel["fieldConfig"]["defaults"].get("max")
    limit = max([value for _, points in lines for value in points.values() if not math.isnan(value)] + floor, default=0)
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is not None and step["value"] <= limit * 1.5:
            axes.axhline(step["value"], color=_MARKS[step["color"]], linewidth=0.8, linestyle=(0, (4, 3)))
            limit = max(limit, step["value"])
    for one, _ in answers:
        if one.panel["targets"][ord(_ref(one)) - ord("A")].get("exemplar"):
            dots = _exemplars(prometheus, one.query, span, limit * 1.15)
            axes.scatter(
                [at for at, _ in dots],
                [value for _, value in dots],
                s=7,
                marker="D",
                color="#777777",
                alpha=0.6,
                linewidths=0,
            )
    axes.set_xlim(*span)
    axes.set_ylim(0, top or limit * 1.15 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=unit == "short" and limit > 4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    minutes = [span[0] + 60 * n for n in range(int((span[1] - span[0]) / 60) + 1)]
    axes.set_xticks(minutes, [f"{n} min" for n in range(len(minutes))])
    axes.tick_params(labelsize=7, length=0, colors="#555555")
    axes.tick_params(axis="x", pad=6)  # the first stands beside the lowest of the other axis
    axes.grid(axis="y", color="#ececec", linewidth=0.7)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#cccccc")
    if lines:
        _legend(axes, columns=min(len(lines), _MOST, 4 if panel["gridPos"]["w"] <= 8 else 6))
        if len(lines) > _MOST:
            axes.text(
                1,
                1.0,
                f"and {len(lines) - _MOST} more",
                transform=axes.transAxes,
                fontsize=6.5,
                ha="right",
                color="#777777",
            )


def _legend(axes: Axes, *, columns: int) -> None:
    """What the lines are, in so many columns, or as many of them as do not run past the panel."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = axes.get_window_extent().width + 2 * _MARGIN * figure.bbox.width
    while True:
        legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=columns, fontsize=6.6, frameon=False, handlelength=1.2, columnspacing=1.0)  # fmt: skip
        if columns == 1 or legend.get_window_extent().width <= room:
            return
        columns -= 1


def _ref(one: Asked) -> str:
    """The target's letter, found by its legend: a panel's legends differ."""
    return next(str(target["refId"]) for target in one.panel["targets"] if target.get("legendFormat", "") == one.legend)


def _points(series: dict[str, Any]) -> list[tuple[float, float]]:
    return [(float(at), float(value)) for at, value in series["values"]]


def _exemplars(
    prometheus: Prometheus, query: str, span: tuple[float, float], limit: float
) -> list[tuple[float, float]]:
    found = prometheus.ask("query_exemplars", query=query, start=str(span[0]), end=str(span[1]))
    dots = [(float(one["timestamp"]), float(one["value"])) for series in found for one in series["exemplars"]]
    return [dot for dot in dots if dot[1] <= limit][:300]


def _bars(figure: Figure, panel: dict[str, Any], box: _Box, answers: _Answers, *, unit: str) -> None:
    left, bottom, width, height = box
    title = 0.25 / figure.get_figheight()
    bars = [
        (named(one.legend, series["metric"]), float(series["value"][1])) for one, found in answers for series in found
    ]
    axes = figure.add_axes((left + 0.1, bottom + 0.012, width - 0.155, height - title - 0.02))
    top = panel["fieldConfig"]["defaults"].get("max") or max((value for _, value in bars), default=1) or 1
    for number, (name, value) in enumerate(reversed(bars)):
        axes.barh(number, top, height=0.62, color="#f0f0f0")
        axes.barh(number, min(value, top), height=0.62, color=_color(panel, value))
        axes.text(top * 1.02, number, shown(value, unit), va="center", fontsize=8, color=_color(panel, value))
        axes.text(-top * 0.02, number, name, va="center", ha="right", fontsize=7.5)
    axes.set_xlim(0, top)
    axes.set_ylim(-0.6, max(len(bars), 1) - 0.4)
    axes.axis("off")


def _table(figure: Figure, panel: dict[str, Any], box: _Box, answers: _Answers) -> None:
    left, bottom, width, height = box
    title = 0.25 / figure.get_figheight()
    key = next(one["options"]["byField"] for one in panel["transformations"] if one["id"] == "joinByField")
    units = {
        one["matcher"]["options"]: str(rule["value"])
        for one in panel["fieldConfig"]["overrides"]
        for rule in one["properties"]
        if rule["id"] == "unit"
    }
    cells: dict[str, dict[str, str]] = {}
    for one, found in answers:
        for series in found:
            row = cells.setdefault(series["metric"].get(key, ""), {})
            number, unit = float(series["value"][1]), units.get(one.legend, "short")
            row[one.legend] = shown(round(number) if unit == "short" and math.isfinite(number) else number, unit)
    heads = [key, *(one.legend for one, _ in answers)]
    line = min(0.26 / figure.get_figheight(), (height - title) / (len(cells) + 2.0))
    y = bottom + height - title - 1.1 * line
    for number, cell in enumerate(heads):
        figure.text(
            left + 0.012 + number * (width - 0.02) / len(heads), y, cell, fontsize=8, weight="bold", color="#3274d9"
        )
    for name, row in sorted(cells.items()):
        y -= line
        for number, cell in enumerate([name, *(row.get(head, "–") for head in heads[1:])]):
            figure.text(left + 0.012 + number * (width - 0.02) / len(heads), y, cell[:40], fontsize=8)


def _color(panel: dict[str, Any], value: float) -> str:
    color = "green"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return _MARKS[color]


def shown(value: float, unit: str) -> str:
    """A number with its unit, as Grafana writes it about."""
    if math.isnan(value):
        return "no data"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return _scaled(value, ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")))
    if unit == "bytes":
        return _scaled(value, ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")))
    number = _scaled(value, ((1e9, "B"), (1e6, "M"), (1e3, "K"), (1, "")))
    return f"{number}{ {'reqps': ' req/s', 'ops': '/s'}.get(unit, '') }"


def _scaled(value: float, scales: Sequence[tuple[float, str]]) -> str:
    if value == 0:
        return "0"
    for size, name in scales:
        if abs(value) >= size:
            return f"{value / size:.3g} {name}".strip()
    return f"{value / scales[-1][0]:.2g} {scales[-1][1]}".strip()
