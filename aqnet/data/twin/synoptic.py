"""Travelling weather: random Fourier modes on a beta plane, a pure function of the hour."""

from __future__ import annotations

import numpy as np

from aqnet.data.twin.config import SynopticConfig
from aqnet.grid import EARTH_RADIUS_KM

__all__ = ["FIELDS", "SynopticModes", "seeded"]

# Streamfunction; thermal wave tied to it; an independent field for moisture and cloud.
FIELDS = ("psi", "thermal", "moist")

_BOX_KM = (6400.0, 8400.0)  # north-south, east-west: larger than any domain here, so no wrapping
_CENTRE_LAT, _CENTRE_LON = 35.0, 105.0
_NODE_H = 6.0
_TRUNCATE = 3.2  # Gaussian memory kernels end here (standard deviations); exp(-5.1) = 0.006
_BETA = 2 * 7.2921e-5 * np.cos(np.deg2rad(_CENTRE_LAT)) / (EARTH_RADIUS_KM * 1e3)  # 1/(m s)


def seeded(*key: int) -> np.random.Generator:
    """Random generator that is a pure function of `key` (non-negative integers)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _spectrum(config: SynopticConfig, wavenumber: np.ndarray) -> np.ndarray:
    """Amplitude of psi per mode: kinetic energy E(k) ~ k^a below and k^-p above the peak."""
    k0 = 2 * np.pi / (config.peak_wavelength_km * 1e3)
    scaled = wavenumber / k0
    energy = scaled**2 / (1 + scaled ** (2 + config.spectral_slope))
    # E(k) dk is spread over the ring 2 pi k dk, and the energy of a mode is k^2 |psi|^2.
    return np.sqrt(energy / wavenumber) / wavenumber


class SynopticModes:
    """Three random fields of unit variance whose waves travel eastward.

    Each mode's amplitude is Gaussian noise at nodes 6 h apart (drawn from a generator keyed by
    seed and node number), smoothed in time by a Gaussian kernel; its phase moves with the steering
    flow and the Rossby phase speed. A field at an hour therefore depends on the configuration and
    that hour alone, in any order of evaluation.

    Parameters
    ----------
    config : SynopticConfig
    seed : int
        World of the weather.
    """

    def __init__(self, config: SynopticConfig, seed: int):
        self._seed = seed
        shortest = config.shortest_wavelength_km
        rows, cols = (int(length // shortest) for length in _BOX_KM)
        ky = 2 * np.pi * np.arange(-rows, rows + 1) / (_BOX_KM[0] * 1e3)
        kx = 2 * np.pi * np.arange(0, cols + 1) / (_BOX_KM[1] * 1e3)
        self._ky, self._kx = ky, kx
        ky2, kx2 = ky[:, None], kx[None, :]
        size = np.hypot(ky2, kx2)
        keep = (size > 0) & (size <= 2 * np.pi / (shortest * 1e3))
        safe = np.where(keep, size, 1.0)
        self._shape = size.shape
        spectrum = np.where(keep, _spectrum(config, safe), 0.0)
        psi = spectrum.copy()
        psi[:, 0] *= np.sqrt(0.5)  # kx = 0 counts each real wave twice
        k_thermal = 2 * np.pi / (config.thermal_wavelength_km * 1e3)
        # Warm air lies in the southerly flow ahead of a trough: a quarter wave from the pressure
        # (dpsi/dx), at the scales of air masses.
        large = np.exp(-((safe / k_thermal) ** 2))
        thermal, moist = 1j * kx2 * psi * large, spectrum * safe * large
        self._amplitude = np.stack([_unit(psi), _unit(thermal), _unit(moist)])
        self.wind_per_psi = float(np.sqrt(0.5 * np.sum(np.abs(self._amplitude[0] * size) ** 2)))
        self._memory_h = self._memories(config, safe)
        self._omega = self._frequencies(config, kx2, ky2, safe)
        self._reach = int(np.ceil(_TRUNCATE * self._memory_h.max() / _NODE_H))
        self._noise: dict[int, np.ndarray] = {}

    def _memories(self, config: SynopticConfig, size: np.ndarray) -> np.ndarray:
        """Width of the kernel per mode, hours: longer for larger waves."""
        wavelength_km = 2 * np.pi / size / 1e3
        memory = config.memory_h * (wavelength_km / config.peak_wavelength_km) ** 0.5
        return np.clip(memory, _NODE_H, config.longest_memory_h)

    def _frequencies(self, config, kx, ky, size) -> np.ndarray:
        rng = seeded(self._seed, 1)
        east = config.steering_m_s + config.steering_spread_m_s * rng.standard_normal(self._shape)
        north = config.steering_spread_m_s * rng.standard_normal(self._shape)
        rossby = np.minimum(_BETA / size**2, config.steering_m_s)  # waves do not retrograde
        slow = np.clip((2 * np.pi / size / 1e3) / config.standing_wavelength_km, 0, 1) ** 2
        return kx * (east - rossby) * (1 - slow) + ky * north

    def _node(self, number: int) -> np.ndarray:
        if number not in self._noise:
            rng = seeded(self._seed, 2, number + (1 << 24))
            pair = rng.standard_normal((2, 2, *self._shape))
            self._noise[number] = (pair[:, 0] + 1j * pair[:, 1]) * np.sqrt(0.5)
        return self._noise[number]

    def _coefficients(self, hour: float) -> np.ndarray:
        """Complex amplitudes, shape (3, Ky, Kx)."""
        first = int(np.floor(hour / _NODE_H)) - self._reach
        numbers = range(first, first + 2 * self._reach + 2)
        for old in [n for n in self._noise if n not in numbers]:
            del self._noise[old]
        total = np.zeros((2, *self._shape), dtype=np.complex128)
        square = np.zeros(self._shape)
        for number in numbers:
            weight = np.exp(-0.5 * ((hour - number * _NODE_H) / self._memory_h) ** 2)
            total += weight * self._node(number)
            square += weight**2
        total *= np.exp(-1j * self._omega * (hour * 3600.0)) / np.sqrt(square)
        return self._amplitude * total[[0, 0, 1]]

    def fields(self, hour: float, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
        """The three fields on the mesh of two axes.

        Parameters
        ----------
        hour : float
            Hours since 1970-01-01 UTC.
        lat, lon : array, shapes (H,), (W,)
            Degrees.

        Returns
        -------
        numpy.ndarray, float64, shape (3, H, W)
            Order `FIELDS`, each of unit variance. The rms speed of the flow with streamfunction
            psi is `wind_per_psi`, so psi times s / wind_per_psi has components of s / sqrt(2) m/s.
        """
        y = np.deg2rad(lat - _CENTRE_LAT) * EARTH_RADIUS_KM * 1e3
        x = np.deg2rad(lon - _CENTRE_LON) * EARTH_RADIUS_KM * 1e3 * np.cos(np.deg2rad(_CENTRE_LAT))
        rows = np.exp(1j * np.multiply.outer(y, self._ky)) @ self._coefficients(hour)
        cols = np.multiply.outer(self._kx, x)
        return rows.real @ np.cos(cols) - rows.imag @ np.sin(cols)


def _unit(amplitude: np.ndarray) -> np.ndarray:
    """Scale so that the field has unit variance: E|noise|^2 = 1, cos^2 averages to 1/2."""
    return amplitude / np.sqrt(0.5 * np.sum(np.abs(amplitude) ** 2))
