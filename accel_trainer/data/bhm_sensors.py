"""Which sensors hang on the bridge, and what each of them reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accel_trainer.data.bhm_physics import (
    EXPANSION,
    EXPANSION_LENGTH,
    GIRDER_SHARES,
    REFERENCE,
    SPAN,
    State,
)
from accel_trainer.data.bhm_series import Array, fluctuation, stream
from accel_trainer.data.bhm_weather import HOUR

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Sensor:
    """One channel.

    Attributes:
        name: stable name; a trailing ``x285`` is the position in decimetres from the left end.
        kind: key of :data:`KINDS`.
        x: position in metres from the left end.
        girder: 1 to 4 from the slow lane's side; 0 for a sensor of the whole section.
    """

    name: str
    kind: str
    x: float = SPAN / 2
    girder: int = 0


@dataclass(frozen=True)
class Kind:
    """What sensors of one kind have in common.

    Attributes:
        unit: physical unit.
        noise: standard deviation of one second's reading; a mean over T has noise / sqrt(T).
        wander: standard deviation of slow errors of sensor, mounting and logger, correlated over an hour or two.
        lowest: least possible reading.
        highest: greatest possible reading.
        response: (state, sensor, character) -> (free part, load-induced part), [time] each. Damage leaves the free
            part as it is and divides the other by the stiffness left. ``character`` draws what makes a sensor itself.
    """

    unit: str
    noise: float
    wander: float
    response: Callable[[State, Sensor, np.random.Generator], tuple[Array, Array]]
    lowest: float = -math.inf
    highest: float = math.inf


def _lanes(sensor: Sensor) -> tuple[float, ...]:
    return GIRDER_SHARES.get(sensor.girder, (1.0, 1.0))


def _deflection(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    """Bow from the gradient, a seasonal rise through bearings and piers, creep sag; trucks and wind press down."""
    bridge, weather = state.bridge, state.weather
    shape = 4 * sensor.x * (SPAN - sensor.x) / SPAN**2
    free = bridge.bow(sensor.x) * weather["gradient"]
    free += shape * (0.16 * (weather["uniform"] - REFERENCE) + 0.22 * (weather["season"] - REFERENCE))
    free -= shape * bridge.creep * 2.6 * state.creep
    load = state.traffic.response(bridge.deflection_line(sensor.x), _lanes(sensor))
    return free, load - shape * 0.25 * (state.wind / 10) ** 2


def _strain(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    """Compensated gauge: what restraint and compensation leave of the thermal strain, creep, and bending under load."""
    bridge, weather = state.bridge, state.weather
    per_degree = bridge.gauge * (1 + 0.2 * character.standard_normal())
    per_gradient = 1.6 * (1 + 0.2 * character.standard_normal())
    free = per_degree * (weather["core"] - REFERENCE) + per_gradient * weather["gradient"]
    free -= bridge.creep * 9.0 * state.creep
    shares = _lanes(sensor)
    return free, state.traffic.response(bridge.strain_line(sensor.x), shares)


def _acceleration(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    """RMS over the period: first mode shape times the shaking, plus the accelerometer's own floor."""
    shape = math.sin(math.pi * sensor.x / SPAN)
    local = 0.25**2  # higher modes and the deck plate keep a quarter alive everywhere
    return np.sqrt((shape**2 + local) * state.shaking + 0.002**2), np.zeros_like(state.shaking)


def _frequency(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    """First frequency as operational modal analysis finds it; -14 % from the coldest to the hottest day (Z24).

    Concrete and asphalt soften with warmth, and freezing stiffens the deck sharply. f goes with sqrt(stiffness).
    """
    uniform = state.weather["uniform"]
    frozen = 2.0 * np.logaddexp(0.0, -uniform / 2.0)  # °C below zero, with a soft corner
    relative = 1 - 0.0018 * (uniform - REFERENCE) + 0.0028 * frozen
    return state.bridge.frequency * relative * np.sqrt(state.stiffness), np.zeros_like(uniform)


def _temperature(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    place = sensor.name.split("_")[1]
    local = 0.4 * character.standard_normal()
    return state.weather[place] + (0.0 if place == "air" else local), np.zeros_like(state.wind)


def _bearing(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    """Expansion of the deck up to the fixed point, creep shortening, end rotation under load times half the depth."""
    bridge = state.bridge
    side = sensor.name.split("_")[1]
    length = EXPANSION_LENGTH[side]
    free = 1e3 * EXPANSION * length * (state.weather["uniform"] - REFERENCE)
    free -= bridge.creep * 0.025 * length * state.creep
    rotation = np.deg2rad(state.traffic.response(np.abs(bridge.slope_line(0.0)), (1.0, 1.0)))
    return free, rotation * 1e3 * bridge.depth / 2


def _tilt(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    """Slope of the deck: bow from the gradient, and bending under load."""
    bridge = state.bridge
    free = bridge.bow_slope(sensor.x) * state.weather["gradient"]
    return free, state.traffic.response(bridge.slope_line(sensor.x), _lanes(sensor))


def _pier_tilt(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    """The bearings pull the pier along when the deck grows; the sun heats its east, then its west; wind leans on it."""
    weather = state.weather
    free = 0.0021 * (weather["uniform"] - REFERENCE) + 0.018 * weather["east_sun"] / 500
    return free, 0.004 * (state.wind / 10) ** 2


def _crack(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    """Width: closes with warmth, opens with a warm bottom and under load, and grows slowly."""
    bridge, weather = state.bridge, state.weather
    per_degree = 0.0028 * (1 + 0.25 * character.standard_normal())
    free = 0.15 - per_degree * (weather["uniform"] - REFERENCE) - 0.002 * weather["gradient"]
    free += 0.012 * state.creep
    return free, 0.0012 * state.traffic.response(bridge.strain_line(sensor.x), _lanes(sensor))


def _cable(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    """External tendon, 50 cm² of strand: gains force when the deck is warmer than it, and under load; relaxes."""
    bridge, weather = state.bridge, state.weather
    rigidity = 195e6 * 0.005  # kN
    force = 4900.0 * (1 + 0.03 * character.standard_normal())
    free = force + rigidity * EXPANSION * (weather["uniform"] - weather["tendon"]) - 0.005 * force * state.creep
    strain = state.traffic.response(bridge.strain_line(sensor.x), (1.0, 1.0))
    return free, rigidity * 0.7e-6 * strain


def _wind(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    return state.wind * (1 + 0.03 * character.standard_normal()), np.zeros_like(state.wind)


def _humidity(state: State, sensor: Sensor, character: np.random.Generator) -> tuple[Array, Array]:
    return state.weather["humidity"], np.zeros_like(state.wind)


KINDS: dict[str, Kind] = {
    "deflection": Kind("mm", 0.4, 0.6, _deflection),
    "strain": Kind("µε", 0.05, 0.6, _strain),  # white noise: .03 µε at 100 Hz (Nebraska) and the logger's resolution
    "accel_rms": Kind("m/s²", 0.0, 0.0, _acceleration, lowest=0.0),
    "frequency": Kind("Hz", 0.12, 0.001, _frequency),
    "temp": Kind("°C", 0.05, 0.08, _temperature),
    "bearing": Kind("mm", 0.05, 0.35, _bearing),  # sliding plates stick and slip
    "tilt": Kind("°", 0.001, 0.001, _tilt),
    "pier_tilt": Kind("°", 0.001, 0.0008, _pier_tilt),
    "crack": Kind("mm", 0.001, 0.001, _crack),
    "cable": Kind("kN", 3.0, 2.0, _cable),
    "wind": Kind("m/s", 0.2, 0.0, _wind, lowest=0.0),
    "humidity": Kind("%", 0.3, 0.5, _humidity, lowest=0.0, highest=100.0),
}

_FIRST = (
    Sensor("deflection_mid", "deflection"),
    Sensor("strain_g2_mid", "strain", SPAN / 2, 2),
    Sensor("temp_air", "temp"),
    Sensor("accel_rms_mid", "accel_rms"),
    Sensor("temp_top", "temp"),
    Sensor("temp_bottom", "temp"),
    Sensor("wind_speed", "wind"),
    Sensor("bearing_left", "bearing", 0.0),
    Sensor("strain_g2_q1", "strain", SPAN / 4, 2),
    Sensor("tilt_pier", "pier_tilt", 0.0),
    Sensor("deflection_q1", "deflection", SPAN / 4),
    Sensor("deflection_q3", "deflection", 3 * SPAN / 4),
    Sensor("accel_rms_q1", "accel_rms", SPAN / 4),
    Sensor("strain_g1_mid", "strain", SPAN / 2, 1),
    Sensor("bearing_right", "bearing", SPAN),
    Sensor("crack_mid", "crack"),
    Sensor("cable_1", "cable"),
    Sensor("humidity", "humidity"),
    Sensor("strain_g3_mid", "strain", SPAN / 2, 3),
    Sensor("tilt_left", "tilt", 0.0),
    Sensor("tilt_right", "tilt", SPAN),
    Sensor("strain_g4_mid", "strain", SPAN / 2, 4),
    Sensor("frequency_1", "frequency"),
    Sensor("strain_g2_q3", "strain", 3 * SPAN / 4, 2),
)
_CYCLE = ("strain", "deflection", "strain", "accel_rms", "strain", "temp_top", "strain", "tilt", "crack", "temp_bottom")


def catalogue(count: int) -> tuple[Sensor, ...]:
    """Return the first ``count`` sensors; a longer list begins with the shorter one.

    The first 24 are a balanced set at the usual places. The rest cycle through the kinds that are many on a real
    bridge, at ever new positions on a half-metre grid.
    """
    sensors = list(_FIRST[:count])
    for extra in range(count - len(_FIRST)):
        turn, place = divmod(extra, len(_CYCLE))
        kind = _CYCLE[place]
        half_metres = 1 + (13 * place + 73 * (turn + 1)) % 119  # 73/119 is near the golden ratio: positions spread
        girder = 1 + place // 2 if kind == "strain" else 0
        name = f"strain_g{girder}" if girder else kind
        family = "temp" if kind.startswith("temp") else kind
        sensors.append(Sensor(f"{name}_x{half_metres * 5:03d}", family, half_metres / 2, girder))
    return tuple(sensors)


def read(state: State, sensor: Sensor, seed: int) -> Array:
    """Return what a healthy sensor reads, [time], measurement noise included."""
    kind, rows, period = KINDS[sensor.kind], len(state.wind), state.period
    free, load = kind.response(state, sensor, stream(seed, f"sensor/{sensor.name}/character"))
    noise = stream(seed, f"sensor/{sensor.name}/noise").standard_normal(rows) * (kind.noise / math.sqrt(period))
    wander = fluctuation(stream(seed, f"sensor/{sensor.name}/wander"), rows, period, 1.5 * HOUR, kind.wander)
    return np.clip(free + load / state.stiffness + noise + wander, kind.lowest, kind.highest)
