"""Weather at the bridge and the temperatures it makes in the deck.

Everything is computed on a fixed 10-minute grid, whatever the period of the record: one seed has one weather.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accel_trainer.data.bhm_series import DAY, Array, fluctuation, lagged, stream

CELL = 600.0  #: seconds per cell of the weather grid
SPIN_UP = 20 * DAY  #: weather before the record, in which the deck forgets where its temperature started
LATITUDE = np.deg2rad(48.0)  #: southern Germany, the place of the temperature statistics below
YEAR = 365.2425 * DAY
HOUR = 3600.0


@dataclass(frozen=True)
class ThermalBody:
    """How fast and how strongly a kind of deck follows air and sun.

    Attributes:
        top_lag: time constant of the deck slab, seconds.
        bottom_lag: time constant of the bottom flange, seconds.
        core_lag: further lag of the effective (linear) gradient behind the surface sensors, seconds.
        web_lag: lag of the thick parts behind the mean of the section, seconds.
        sun: excess of the sunlit surface's balance temperature, °C per W/m².
        top_share: share of the cross-section that has the top's temperature.
    """

    top_lag: float
    bottom_lag: float
    core_lag: float
    web_lag: float
    sun: float
    top_share: float


@dataclass(frozen=True, eq=False)
class Weather:
    """Weather and deck temperatures, each [cells] on the 10-minute grid that starts ``SPIN_UP`` before the record.

    Attributes:
        air: °C.
        top: deck slab at its sensor, °C.
        bottom: bottom flange, °C.
        uniform: mean of the cross-section, °C; the part that lengthens the deck.
        gradient: effective linear difference top minus bottom, °C; the part that bends the deck.
        core: uniform temperature of the thick webs and flanges where strain gauges sit, °C; lags by hours.
        season: uniform temperature without days and weather, °C, lagging by weeks (bearings, piers, moisture).
        tendon: external tendon or stay, thin and therefore close to the air, °C.
        east_sun: sun on the east (+) or west (-) face of the piers, W/m², lagged.
        humidity: relative humidity, %.
        wind: mean speed at deck level, m/s.
    """

    air: Array
    top: Array
    bottom: Array
    uniform: Array
    gradient: Array
    core: Array
    season: Array
    tendon: Array
    east_sun: Array
    humidity: Array
    wind: Array


def _sky(seed: int, rows: int, year: Array) -> Array:
    """Cloud cover 0 to 1: fronts of about a day, passing clouds of about an hour, more of both in winter."""
    fronts = fluctuation(stream(seed, "weather/fronts"), rows, CELL, 1.3 * DAY)
    clouds = fluctuation(stream(seed, "weather/clouds"), rows, CELL, 1.2 * HOUR)
    return np.asarray(1 / (1 + np.exp(-(2.0 * fronts + 0.8 * clouds + 1.1 + 0.6 * np.cos(2 * np.pi * year)))))


def _sun(year: Array, hour: Array, cloud: Array) -> tuple[Array, Array]:
    """Return global irradiance (W/m²) and the hour angle (rad).

    Kasten & Czeplak, Solar Energy 24 (1980): clear sky 910 sin(elevation) - 30 W/m², times 1 - 0.75 cloud^3.4.
    """
    declination = np.deg2rad(23.44) * np.sin(2 * np.pi * (year - 80 / 365.25))
    angle = 2 * np.pi * (hour - 12.2) / 24
    sine = np.sin(LATITUDE) * np.sin(declination) + np.cos(LATITUDE) * np.cos(declination) * np.cos(angle)
    return np.maximum(910 * sine - 30, 0) * (1 - 0.75 * cloud**3.4), angle


def _wind(seed: int, rows: int, year: Array, hour: Array) -> Array:
    """10-minute mean speed: two components of the wind around a prevailing one, so speeds are near a Weibull law.

    Weather systems last half a day, squalls half an hour; afternoons and winters are windier.
    """
    components = []
    for axis, prevailing in (("along", 1.9), ("across", 0.6)):
        systems = fluctuation(stream(seed, f"weather/wind/{axis}/systems"), rows, CELL, 13 * HOUR, 2.9)
        squalls = fluctuation(stream(seed, f"weather/wind/{axis}/squalls"), rows, CELL, 0.6 * HOUR, 0.65)
        components.append(prevailing + systems + squalls)
    daily = 1 + 0.18 * np.cos(2 * np.pi * (hour - 14.5) / 24)
    return np.asarray(np.hypot(*components) * daily * (1 + 0.15 * np.cos(2 * np.pi * (year - 0.03))))


def make_weather(seed: int, start: float, seconds: float, body: ThermalBody) -> Weather:
    """Return the weather of a record.

    Magnitudes after the German P-BIM inputs (2018): uniform temperature with monthly means of -8.5 to +18.9 °C, a
    daily range of 5.7 °C, its peak at 14 to 15 h and its minimum at 05 h; vertical difference with a daily range of
    5.3 °C, 14.3 °C at most, its peak at about 13 h. Ten generated years of the concrete bridge have -7.0 to +18.9 °C,
    6.8 °C, 14.8 h and 4.8 h; the difference between the sensors peaks at 13.3 h and reaches 14.0 °C, the effective
    gradient has a daily range of 5.6 °C.

    Args:
        seed: seed of the bridge.
        start: first moment of the record, seconds since 1970-01-01 local time.
        seconds: length of the record.
        body: thermal behaviour of the deck.
    """
    rows = int(np.ceil((SPIN_UP + seconds) / CELL)) + 1  # one more, so that the last row has a neighbour
    time = start - SPIN_UP + (np.arange(rows) + 0.5) * CELL
    year, hour = time / YEAR % 1.0, time / HOUR % 24.0
    cloud = _sky(seed, rows, year)
    sun, angle = _sun(year, hour, cloud)

    systems = fluctuation(stream(seed, "weather/air/systems"), rows, CELL, 4 * DAY, 3.0)
    local = fluctuation(stream(seed, "weather/air/local"), rows, CELL, 1.5 * HOUR, 0.3)
    winter = 1 + 0.2 * np.cos(2 * np.pi * year)
    season = 4.4 - 13.0 * np.cos(2 * np.pi * (year - 18 / 365.25))
    days = 0.017 * (lagged(sun, 2.6 * HOUR, CELL) - lagged(sun, 2 * DAY, CELL))
    air = season + winter * lagged(systems, 14 * HOUR, CELL) + days + local

    night = 0.3 * (1 - cloud)  # the slab radiates to a clear sky
    top = lagged(air + body.sun * sun - night, body.top_lag, CELL)
    bottom = lagged(air + 0.06 * body.sun * sun, body.bottom_lag, CELL)
    uniform = body.top_share * top + (1 - body.top_share) * bottom
    moisture = fluctuation(stream(seed, "weather/humidity"), rows, CELL, 10 * HOUR, 6.0)
    humidity = 74 + 22 * (cloud - 0.55) - 3.0 * days + moisture + 5 * np.cos(2 * np.pi * year)
    return Weather(
        air=air,
        top=top,
        bottom=bottom,
        uniform=uniform,
        gradient=lagged(top - bottom, body.core_lag, CELL),
        core=lagged(uniform, body.web_lag, CELL),
        season=lagged(4.4 - 13.0 * np.cos(2 * np.pi * (year - 58 / 365.25)), 2 * DAY, CELL),
        tendon=lagged(air, 0.7 * HOUR, CELL),
        east_sun=lagged(-sun * np.sin(angle), 2 * HOUR, CELL),
        humidity=100 - 3 * np.logaddexp(0, (100 - humidity) / 3),  # fog: saturates softly at 100 %
        wind=_wind(seed, rows, year, hour),
    )
