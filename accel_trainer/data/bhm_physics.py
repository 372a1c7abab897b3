"""The bridge itself: a simply supported span, its stiffness, influence lines and movements.

channel = thermal (uniform + gradient, lagged) + traffic (influence line) + wind + creep + noise. Signs: deflection is
positive upward, strain in tension, bearing movement when the deck grows, tilt when the left end rises towards the span.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accel_trainer.data.bhm_series import DAY, Array, fluctuation, lagged, row_means, stream
from accel_trainer.data.bhm_traffic import Traffic, make_traffic
from accel_trainer.data.bhm_weather import CELL, HOUR, SPIN_UP, ThermalBody, make_weather

if TYPE_CHECKING:
    from accel_trainer.data.bhm_options import BridgeOptions

SPAN = 60.0  #: m
EXPANSION = 12e-6  #: per °C, steel and concrete alike
EXPANSION_LENGTH = {"left": 120.0, "right": 60.0}  #: m of deck between each bearing and the fixed point
REFERENCE = 10.0  #: °C, uniform temperature at which the sensors were zeroed
POSITIONS = np.linspace(0.0, SPAN, 121)  #: where influence lines are evaluated, m
# Part of each lane's load (slow lane, fast lane) that each of the four webs carries, times four.
GIRDER_SHARES = {1: (1.32, 0.76), 2: (1.16, 1.00), 3: (0.88, 1.16), 4: (0.64, 1.08)}


@dataclass(frozen=True)
class Bridge:
    """A kind of bridge.

    Attributes:
        stiffness: EI, N m².
        mass: kg per metre.
        depth: distance of the two temperatures that make the gradient, m.
        lever: neutral axis to the gauges at the bottom, m.
        damping: share of critical.
        creep: part of the long-term shortening and sag that concrete shows, 1 or 0.
        gauge: apparent strain left after temperature compensation, µε per °C of uniform temperature.
        body: thermal behaviour.
    """

    stiffness: float
    mass: float
    depth: float
    lever: float
    damping: float
    creep: float
    gauge: float
    body: ThermalBody

    @property
    def frequency(self) -> float:
        """First natural frequency in Hz, f_n = (n² π / 2 L²) sqrt(EI / m) with n = 1: beam theory."""
        return math.pi / (2 * SPAN**2) * math.sqrt(self.stiffness / self.mass)

    def deflection_line(self, x: float) -> Array:
        """Deflection in mm at ``x`` under 1 kN at each of ``POSITIONS`` (simple beam, downward negative)."""
        near, far = np.minimum(POSITIONS, x), SPAN - np.maximum(POSITIONS, x)
        return -1e6 * near * far * (SPAN**2 - near**2 - far**2) / (6 * self.stiffness * SPAN)

    def slope_line(self, x: float) -> Array:
        """Slope in degrees at ``x`` under 1 kN at each of ``POSITIONS``: the derivative of the deflection line."""
        a = POSITIONS
        b = SPAN - a
        left = b * (SPAN**2 - b**2 - 3 * x**2)  # sensor left of the load
        right = -a * (SPAN**2 - a**2 - 3 * (SPAN - x) ** 2)
        return -np.rad2deg(1e3 * np.where(a >= x, left, right) / (6 * self.stiffness * SPAN))

    def strain_line(self, x: float) -> Array:
        """Strain in µε at the bottom at ``x`` under 1 kN at each of ``POSITIONS``: moment line times lever / EI."""
        near, far = np.minimum(POSITIONS, x), SPAN - np.maximum(POSITIONS, x)
        return 1e9 * near * far / SPAN * self.lever / self.stiffness

    def bow(self, x: float) -> float:
        """Upward deflection in mm at ``x`` per °C of vertical temperature difference: curvature times x (L - x) / 2."""
        return 1e3 * EXPANSION / self.depth * x * (SPAN - x) / 2

    def bow_slope(self, x: float) -> float:
        """Slope in degrees at ``x`` per °C of vertical temperature difference."""
        return math.degrees(EXPANSION / self.depth * (SPAN / 2 - x))


BRIDGES = {
    # Box girder, 2.8 m deep: a 400 kN truck bends it by 7.6 mm and strains it by 42 µε; 1.5 Hz (60 m span; Nebraska's
    # short concrete spans show 22-24 µε, P-BIM's and Hålogaland's frequencies lie at 0.05 to 4 Hz).
    "concrete": Bridge(
        stiffness=2.38e11,
        mass=19_000,
        depth=2.8,
        lever=1.65,
        damping=0.012,
        creep=1.0,
        gauge=1.1,
        body=ThermalBody(1.6 * HOUR, 2.5 * HOUR, 3.0 * HOUR, 4 * HOUR, 0.0185, 0.35),
    ),
    # Composite plate girders: the same truck makes 19 mm and 127 µε (Nebraska, steel: 108-153 µε).
    "steel": Bridge(
        stiffness=9.45e10,
        mass=9_000,
        depth=2.9,
        lever=2.0,
        damping=0.006,
        creep=0.15,
        gauge=1.2,
        body=ThermalBody(1.3 * HOUR, 0.7 * HOUR, 1.5 * HOUR, 1 * HOUR, 0.0205, 0.3),
    ),
}


@dataclass(frozen=True, eq=False)
class State:
    """Everything that acts on the bridge, as period means, [time] each.

    Attributes:
        bridge: the kind of bridge.
        period: seconds per row.
        weather: temperatures, sun, humidity (see :class:`~accel_trainer.data.bhm_weather.Weather`).
        wind: speed at deck level with its turbulence, m/s.
        traffic: vehicles.
        shaking: mean square of the acceleration at midspan, (m/s²)².
        creep: 0 at the start of the record, 1 a year later, slowing down.
        stiffness: share of EI that is left; 1 before the damage event.
    """

    bridge: Bridge
    period: float
    weather: dict[str, Array]
    wind: Array
    traffic: Traffic
    shaking: Array
    creep: Array
    stiffness: Array


def _shaking(seed: int, bridge: Bridge, wind: Array, traffic: Traffic, stiffness: Array, period: float) -> Array:
    """Mean square acceleration of the first mode at midspan.

    Trucks give 0.06 m/s² while a 400 kN truck is on the bridge and ring down with 1/(2 zeta omega); wind gives
    0.045 m/s² at 10 m/s and grows with its square (buffeting), so that the RMS follows the wind (Gjemnessund: r = .83
    between mean wind and vertical standard deviation). White excitation of a lightly damped mode gives a mean square
    proportional to frequency at constant mass, and a mean over T has the scatter of about 2 pi zeta f T independent
    samples (Crandall & Mark, Random Vibration, 1963).
    """
    frequency = bridge.frequency * np.sqrt(stiffness)
    width = 2 * math.pi * bridge.damping * bridge.frequency
    trucks = lagged(traffic.energy * (0.06 / 400) ** 2, 1 / (2 * width), period)
    scatter = stream(seed, "physics/shaking").standard_gamma(0.75 + width * period, len(wind))
    scatter /= 0.75 + width * period
    excitation = (trucks + (0.045 * (wind / 10) ** 2) ** 2) * scatter
    return np.asarray(excitation * frequency / bridge.frequency)


def make_state(options: BridgeOptions) -> State:
    """Return weather, traffic and stiffness over the whole record."""
    bridge, rows, period, seed = BRIDGES[options.kind], options.rows, options.period, options.seed
    start = options.start_ns / 1e9
    cells = make_weather(seed, start, rows * period, bridge.body)
    weather = {name: row_means(series, CELL, SPIN_UP, rows, period) for name, series in vars(cells).items()}

    # Turbulence of 15 % with an integral time of 12 s; a 10-minute mean hardly feels it.
    turbulence = fluctuation(stream(seed, "weather/wind/turbulence"), rows, period, 12.0, 0.15)
    wind = weather["wind"] * np.abs(1 + turbulence)

    day = np.arange(rows) * (period / DAY)
    damaged = day >= options.event_day
    stiffness = np.where(damaged, 1.0 - options.damage, 1.0)
    age = 2.0  # years under load when the record begins; creep goes on with the logarithm of the age
    creep = np.log1p(day / 365.25 / age) / math.log1p(1 / age)
    traffic = make_traffic(seed, start, rows, period, SPAN)
    shaking = _shaking(seed, bridge, wind, traffic, stiffness, period)
    return State(bridge, period, weather, wind, traffic, shaking, creep, stiffness)
