"""The figures of a report: forecasts over time, error by step ahead, the course of the training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from accel_trainer.errors import UserError, not_written
from accel_trainer.reporting.svg import DASHES, PAGE, PRINT, Palette, finish, new_figure, to_svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from accel_trainer.reporting.examples import Examples
    from accel_trainer.reporting.markup import Html

    Points = tuple[NDArray[np.float64], NDArray[np.float64]]

_MOST_POINTS = 1200
"""Points of a drawn line; a card on the page is not wider than that many pixels."""
_BINS = 240
"""Points of the smoothed training loss."""
_ROOM = 0.5
"""How far beyond the usual range a reading is still drawn, in parts of it; a fault's spike would flatten the rest."""
_LOG_FROM = 8.0
"""Ratio of largest to smallest loss from which a logarithmic axis shows more."""
MOST_MARKS = 24
"""Forecasts whose starts are marked on the axis."""
PICTURE_KINDS = (".png", ".svg", ".pdf")


def forecast_svg(examples: Examples, sensor: int) -> Html:
    """Return one sensor's picture for the page: measured and forecast over time.

    Args:
        examples: what to draw.
        sensor: position in ``examples.sensors``.
    """
    figure = new_figure(5.3, 2.2)
    axes = figure.add_subplot()
    _draw_forecast(axes, examples, sensor, PAGE)
    finish(axes, PAGE)
    _time_axis(axes, examples)
    return to_svg(figure, f"f{sensor}", f"Measured and forecast {examples.sensors[sensor]} over time")


def write_forecast_picture(path: Path, examples: Examples) -> None:
    """Write one picture of all sensors of the examples, stacked over a common time axis.

    Raises:
        UserError: a kind of file that is not known, or one that cannot be written.
    """
    if path.suffix.lower() not in PICTURE_KINDS:
        raise UserError(f"{path}: a picture's name ends in {', '.join(PICTURE_KINDS)}")
    import matplotlib as mpl
    from matplotlib.lines import Line2D

    count = len(examples.sensors)
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "accel_trainer"}):
        figure = new_figure(8.4, 0.8 + 1.35 * count)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.06)
        figure.set_facecolor("white")
        panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
        for sensor, axes in enumerate(panels):
            _draw_forecast(axes, examples, sensor, PRINT)
            finish(axes, PRINT)
            name, unit = examples.sensors[sensor], examples.units[sensor]
            title = f"{name}, {unit}" if unit else name
            axes.set_title(title, loc="left", fontsize=9, color=PRINT.ink, parse_math=False)
            axes.set_ylabel("")
        _time_axis(panels[-1], examples)
        figure.align_ylabels(panels)
        handles, labels = list(panels[0].lines[:2]), ["measured", "forecast"]
        if any(beyond(examples, sensor) for sensor in range(count)):
            handles.append(Line2D([], [], color=PRINT.measured, ls="", marker="^", ms=4))
            labels.append("reading beyond the axis")
        figure.legend(
            handles,
            labels,
            loc="outside upper right",
            ncols=len(labels),
            frameon=False,
            fontsize=9,
            labelcolor=PRINT.ink,
        )
        staging = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(staging, dpi=115)
            staging.replace(path)
        except OSError as error:
            raise not_written(path, error) from None
        finally:
            staging.unlink(missing_ok=True)


def steps_svg(curves: Mapping[str, Sequence[float]], period: float | None) -> Html:
    """Return the error by step ahead.

    Args:
        curves: name -> MSE of each step, the model's first; NaN where nothing was observed.
        period: seconds between two steps; None: the axis counts steps.
    """
    figure = new_figure(5.3, 2.6)
    axes = figure.add_subplot()
    scale, unit = _time_unit(max(len(curve) for curve in curves.values()) * period) if period else (1.0, "steps")
    for number, curve in reversed(list(enumerate(curves.values()))):
        ahead = np.arange(1, len(curve) + 1) * (period or 1.0) / scale
        style = _line_style(number, PAGE)
        axes.plot(ahead, np.asarray(curve, dtype=np.float64), marker="o" if len(curve) <= 12 else "", ms=3, **style)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{unit} ahead")
    axes.set_ylabel("MSE (z)")
    finish(axes, PAGE)
    return to_svg(figure, "ahead", "Mean squared error by step ahead, of the model and its baselines")


def curve_svg(rows: Sequence[Mapping[str, Any]], monitor: str, best: Mapping[str, Any] | None, shared: bool) -> Html:
    """Return training loss and validation metric by step.

    Args:
        rows: of ``metrics.jsonl``; None stands for a number that was none.
        monitor: name of the validation metric.
        best: its best ``value`` and the ``step`` of that; None: no mark.
        shared: whether loss and metric are the same quantity and belong on one axis.
    """
    loss, metric = series(rows, "train/loss"), series(rows, monitor)
    figure = new_figure(5.3, 2.6)
    two = bool(not shared and len(metric[0]) and len(loss[0]))
    panels = figure.subplots(1, 2 if two else 1, squeeze=False)[0]
    lossy, metrical = panels[0], panels[-1]
    _draw_loss(lossy, loss)
    metrical.plot(*metric, color=PAGE.model, lw=1.8, marker="o" if len(metric[0]) <= 60 else "", ms=3.5)
    if best is not None:
        metrical.axvline(best["step"], color=PAGE.model, lw=0.8, dashes=(2, 2))
        metrical.plot([best["step"]], [best["value"]], color=PAGE.model, marker="o", ms=8, mfc="none", mew=1.4)
    lossy.set_ylabel(f"loss and {monitor}" if shared else "training loss", parse_math=False)
    if two:
        metrical.set_ylabel(monitor, parse_math=False)
    for axes in panels:
        _loss_scale(axes)
        axes.set_xlabel("step")
        finish(axes, PAGE)
    return to_svg(figure, "curve", f"Training loss and {monitor} by step")


def series(rows: Sequence[Mapping[str, Any]], name: str) -> Points:
    """Return steps and values of the rows in which a number of that name is finite."""
    pairs = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), (int, float))]
    steps, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def _draw_forecast(axes: Any, examples: Examples, sensor: int, palette: Palette) -> None:
    time = _numbers(examples)
    starts = [int(start) for start in examples.starts]
    readings, limits = examples.measured[:, sensor], usual_range(examples, sensor)
    low, high = limits or (-np.inf, np.inf)
    shown = np.where((readings < low) | (readings > high), np.nan, readings)
    x, y = _thinned(time, shown)
    axes.plot(x, y, color=palette.measured, lw=1.0, **_dots(y))
    # A gap between two forecasts: the jump to the newest one is not something anybody forecast. Forecasts of one step
    # are all jumps; those are joined.
    gap = [np.nan] if len(time) > len(starts) else []
    xs: list[Any] = []
    ys: list[Any] = []
    for begin, end in zip(starts, [*starts[1:], len(time)], strict=True):
        x, y = _thinned(time[begin:end], examples.forecast[begin:end, sensor], _MOST_POINTS // len(starts))
        xs += [x, gap]
        ys += [y, gap]
    joined = np.concatenate(ys)
    axes.plot(np.concatenate(xs), joined, color=palette.model, lw=1.8, **_dots(joined))
    if len(starts) <= MOST_MARKS:
        for start in starts:
            axes.axvline(time[start], ymax=0.04, color=palette.muted, lw=0.8)
    axes.set_xlim(time[0], time[-1] if len(time) > 1 else time[0] + 1)
    axes.set_ylabel(examples.units[sensor], parse_math=False)
    if limits is None:
        return
    margin = 0.06 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    for hidden, edge, marker in ((readings < low, 0.0, "v"), (readings > high, 1.0, "^")):
        if hidden.any():
            style = {"color": palette.measured, "ls": "", "marker": marker, "ms": 4, "clip_on": False}
            axes.plot(time[hidden], np.full(int(hidden.sum()), edge), transform=axes.get_xaxis_transform(), **style)


def _dots(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return the style that lets a value between two gaps be seen: no line leads to it, so it needs a dot."""
    finite = np.isfinite(np.concatenate([[np.nan], values, [np.nan]]))
    alone = np.flatnonzero(finite[1:-1] & ~finite[:-2] & ~finite[2:])
    return {"marker": "o", "ms": 2.5, "markevery": alone.tolist()} if len(alone) else {}


def usual_range(examples: Examples, sensor: int) -> tuple[float, float] | None:
    """Return the values between which a sensor is drawn: all forecasts, and readings but for single spikes.

    None: nothing was measured and nothing was forecast, or all of it is one value.
    """
    measured, forecast = examples.measured[:, sensor], examples.forecast[:, sensor]
    measured, forecast = measured[np.isfinite(measured)], forecast[np.isfinite(forecast)]
    both = np.concatenate([measured, forecast])
    if not len(both) or both.min() == both.max():
        return None
    usual = np.concatenate([np.quantile(measured, (0.03, 0.97)) if len(measured) else measured, forecast])
    low, high = float(usual.min()), float(usual.max())
    room = _ROOM * (high - low)
    inside = both[(both >= low - room) & (both <= high + room)]
    return float(inside.min()), float(inside.max())


def beyond(examples: Examples, sensor: int) -> int:
    """Return how many readings lie outside :func:`usual_range` and are only marked."""
    limits, readings = usual_range(examples, sensor), examples.measured[:, sensor]
    return 0 if limits is None else int(((readings < limits[0]) | (readings > limits[1])).sum())


def _draw_loss(axes: Any, loss: Points) -> None:
    steps, values = loss
    if not len(steps):
        return
    parts = np.array_split(np.arange(len(steps)), min(_BINS, max(1, len(steps) // 4)))
    middle = np.array([steps[part].mean() for part in parts])
    if len(steps) // len(parts) >= 3:
        low, high = (np.array([np.quantile(values[part], q) for part in parts]) for q in (0.1, 0.9))
        axes.fill_between(middle, low, high, color=PAGE.muted, alpha=0.22, lw=0)
    axes.plot(middle, [values[part].mean() for part in parts], color=PAGE.muted, lw=1.2)


def _loss_scale(axes: Any) -> None:
    """Make an axis of losses logarithmic when they fell far; NaN and values that are not above 0 forbid it."""
    drawn = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines[:2]]
    values = np.concatenate([np.empty(0), *drawn])
    if len(values) and values.min() > 0 and values.max() > _LOG_FROM * values.min():
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _line_style(number: int, palette: Palette) -> dict[str, Any]:
    if number == 0:
        return {"color": palette.model, "lw": 2.4}
    kind = (number - 1) % len(DASHES)
    pattern = (0, [float(part) for part in DASHES[kind].split()])
    return {"color": palette.baselines[kind], "lw": 1.3, "ls": pattern, "dash_capstyle": "butt", "zorder": 3}


def _time_axis(axes: Any, examples: Examples) -> None:
    if examples.kind == "datetime":
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=3, maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        axes.set_xlabel("s" if examples.kind == "seconds" else "row")


def _numbers(examples: Examples) -> NDArray[np.float64]:
    """Return the time as matplotlib counts it: days for dates."""
    if examples.kind != "datetime":
        return examples.time.astype(np.float64)
    from matplotlib.dates import date2num

    return np.asarray(date2num(examples.time), dtype=np.float64)


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64], most: int = _MOST_POINTS) -> Points:
    """Return a line of about ``most`` points at most: the extremes of each stretch, and where a gap begins."""
    if len(x) <= max(most, 4):
        return x, y
    kept: list[int] = []
    for part in np.array_split(np.arange(len(x)), max(most // 2, 2)):
        there = np.isfinite(y[part])
        chosen = {int(part[there][pick(y[part][there])]) for pick in (np.argmin, np.argmax) if there.any()}
        kept += sorted(chosen if there.all() else {*chosen, int(part[there.argmin()])})
    return x[kept], y[kept]


def _time_unit(seconds: float) -> tuple[float, str]:
    """Return the unit in which so long a time is a number of one or two digits."""
    for unit, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")):
        if seconds >= 3 * unit:
            return unit, name
    return (1e-3, "milliseconds") if seconds < 1 else (1.0, "seconds")
