"""Numbers, times and spans as people read them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from accel_trainer.metrics.verdict import gain

NOTHING = "–"


def number(value: Any, digits: int = 4) -> str:
    """Return a number with so many significant digits; a dash for None and for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    # The exponent after rounding: 9.9996 is 10.00, not 10.000.
    exponent = int(f"{abs(value):.{digits - 1}e}".partition("e")[2])
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def score(value: Any) -> str:
    """Return an error in z units with four decimals, as the terminal and papers print it."""
    return f"{value:.4f}" if is_number(value) and 1e-3 <= abs(value) < 1e3 else number(value)


def coefficient(value: Any) -> str:
    """Return an R² with four decimals."""
    return f"{value:.4f}".replace("-", "−") if is_number(value) and abs(value) < 1e3 else number(value)


def gained(mse: Any, other: Any) -> str:
    """Return by how much an MSE lies below another one, in percent; below 0 it lies above."""
    if not (is_number(mse) and is_number(other)) or not other:
        return NOTHING
    percent = round(gain(mse, other) * 100, 1) + 0.0  # -0.0 becomes 0.0
    return f"{percent:+.1f} %".replace("-", "−") if percent else "0.0 %"


def is_number(value: Any) -> bool:
    """Tell whether a value can be calculated with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def share(part: Any) -> str:
    """Return a part of a whole in percent; only all of it is 100 %."""
    if not is_number(part):
        return NOTHING
    text = f"{part * 100:.1f}"
    return f"{'100' if part == 1 else 'over 99.9' if text == '100.0' else text} %"


def span(seconds: float) -> str:
    """Return a length of time in its largest fitting unit: ``10 min``, ``4 h``, ``3 days``."""
    for unit, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= (2 * unit if name == "days" else unit):
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e3:.3g} ms" if seconds else "0 s"


def elapsed(seconds: float) -> str:
    """Return how long something took: ``7.0 s``, ``2 min 5 s``, ``3 h 12 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(label: Any) -> str:
    """Return a time label without digits that say nothing: ``2025-01-01 00:00``, ``12.5 s``, or a row's number."""
    text = str(label)
    if "T" not in text:
        return text if text.isdigit() else f"{float(text):.10g} s"
    date, time = text.split("T")
    time = time.rstrip("0").rstrip(".") if "." in time else time
    return f"{date} {time[:5] if time[5:] == ':00' else time}"


def later(label: str, seconds: float) -> str:
    """Return the time label so many seconds after another one."""
    try:
        if "T" in label:
            return moment(np.datetime64(label, "ns") + np.timedelta64(round(seconds * 1e9), "ns"))
        return moment(float(label) + seconds)
    except ValueError:
        return NOTHING


def sentence(text: str) -> str:
    """Return a text that starts with a capital and ends with a full stop."""
    text = stopped(text)
    return text[:1].upper() + text[1:]


def stopped(text: str) -> str:
    """Return a text with a full stop at its end."""
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return ``1 sensor`` or ``24 sensors``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
