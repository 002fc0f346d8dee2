"""Values over time as a line chart, so that a run's course is seen without a server."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

# Okabe and Ito, "Color Universal Design", 2008: told apart in colour-blind vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]], title: str, x_label: str = "step", y_label: str = ""
) -> bytes:
    """A PNG with one line for each series of (x, y) points; a series of one point is a dot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(series.items()):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        marker = "o" if len(points) < 30 else ""
        colour, style = _COLOURS[number % len(_COLOURS)], ("-", "--", ":")[number // len(_COLOURS) % 3]
        axes.plot(xs, ys, style, color=colour, marker=marker, markersize=3.5, linewidth=1.8, label=name)
    axes.set_title(title, loc="left", fontsize=13)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if series:
        axes.legend(frameon=False)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
