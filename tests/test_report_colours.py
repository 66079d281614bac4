"""Colours of reports: monotone in lightness, told apart with colour blindness."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from aqnet.verification.report.colours import (
    DEUTERANOPIA,
    DIVERGING,
    PROTANOPIA,
    SEQUENTIAL,
    heat,
    lightness,
    simulated,
)

EYES = [np.eye(3), DEUTERANOPIA, PROTANOPIA]
STEPS = np.linspace(0, 1, 101)


def seen(name, eye):
    return simulated(colormaps[name](STEPS)[:, :3], eye)


def test_lightness_is_that_of_cie():
    np.testing.assert_allclose(lightness(np.array([[0, 0, 0], [1, 1, 1]])), [0, 100], atol=1e-4)
    assert lightness(np.array([0.5, 0.5, 0.5])) == pytest.approx(53.39, abs=0.01)
    assert lightness(np.array([1.0, 0, 0])) == pytest.approx(53.24, abs=0.02)


@pytest.mark.parametrize("eye", EYES)
def test_the_sequential_map_grows_lighter_evenly(eye):
    steps = np.diff(lightness(seen(SEQUENTIAL, eye)))
    assert (steps > 0).all() and steps.max() < 3.0 * steps.mean()


@pytest.mark.parametrize("eye", EYES)
def test_the_diverging_map_is_lightest_in_the_middle_and_its_ends_differ(eye):
    colours = seen(DIVERGING, eye)
    light = lightness(colours)
    assert (np.diff(light[:51]) > 0).all() and (np.diff(light[50:]) < 0).all()
    # hue tells the sides apart: blue against red or brown, at equal distance from the middle
    sides = colours[:38, 2] - colours[:38, 0], colours[63:, 2] - colours[63:, 0]
    assert (sides[0] > 0.015).all() and (sides[1] < -0.015).all()


def test_jet_would_fail():
    assert (np.diff(lightness(seen("jet", np.eye(3)))) < 0).any()


@pytest.mark.parametrize("value", [-3.0, -0.5, -0.2, 0.0, 0.1, 0.5, 9.0])
def test_text_on_heat_maps_can_be_read(value):
    colour, ink = heat(value, 0.5)
    light, dark = sorted(((lightness(np.array(to_rgb(c))) + 16) / 116) ** 3 for c in (colour, ink))[
        ::-1
    ]
    assert (light + 0.05) / (dark + 0.05) > 4.5
    blue = np.array(to_rgb(colour))[[2, 0]]
    assert value == 0 or (blue[0] > blue[1]) == (value > 0)


def test_nothing_known_has_no_colour():
    assert heat(np.nan, 0.5) == ("", "")
