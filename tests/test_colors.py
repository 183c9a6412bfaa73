"""Arm colours are told apart by everyone, on white and on a dark page.

Criterion: any two arms differ by 8 or more (CIEDE2000) to normal sight and in simulations of protanopia, deuteranopia
and tritanopia of Machado et al. 2009 (severity 1); every arm has a contrast of 3 or more with its page (WCAG 1.4.11).
"""

import itertools

import numpy as np
import pytest

from mechsub.lab.figures import colors

SIGHTS = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
PAGES = {"light": (colors.ARM_COLORS, "#FFFFFF"), "dark": (colors.DARK_ARM_COLORS, colors.DARK_PAGE)}
LINES = {"light": colors.OKABE_ITO, "dark": colors.DARK_OKABE_ITO}


def linear(color):
    values = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    t = XYZ @ rgb / XYZ.sum(1)
    x, y, z = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def ciede2000(one, other):
    (l1, a1, b1), (l2, a2, b2) = one, other
    c = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(c**7 / (c**7 + 25**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    hue = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    light, c = (l1 + l2) / 2, (c1 + c2) / 2
    t = 1 + sum(w * np.cos(np.radians(k * hue + at)) for w, k, at in (
        (-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63),
    ))  # fmt: skip
    sl, sc, sh = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2), 1 + 0.045 * c, 1 + 0.015 * c * t
    rt = -2 * np.sqrt(c**7 / (c**7 + 25**7)) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    dl, dc, dh = (l2 - l1) / sl, (c2 - c1) / sc, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / sh
    return np.sqrt(dl**2 + dc**2 + dh**2 + rt * dc * dh)


def test_the_distance_is_that_of_the_published_test_data():
    """Sharma, Wu and Dalal 2005, pairs 1, 7, 9, 17, 25 and 31."""
    pairs = [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((36.4612, 47.8580, 18.3852), (36.2715, 50.5065, 21.2231), 1.4146),
    ]
    for one, other, wanted in pairs:
        assert ciede2000(one, other) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("sight", SIGHTS)
def test_any_two_arms_differ(page, sight):
    seen = {arm: lab(np.clip(SIGHTS[sight] @ linear(color), 0, 1)) for arm, color in PAGES[page][0].items()}
    near = {(a, b): ciede2000(seen[a], seen[b]) for a, b in itertools.combinations(seen, 2)}
    assert {pair: round(float(d), 1) for pair, d in near.items() if d < 8} == {}


@pytest.mark.parametrize("page", PAGES)
def test_every_line_stands_out_from_its_page(page):
    arms, paper = PAGES[page]
    for arm, color in [*arms.items(), *enumerate(LINES[page]), ("null", colors.GREY)]:
        low, high = sorted(float(XYZ[1] @ linear(c)) for c in (color, paper))
        assert (high + 0.05) / (low + 0.05) >= 3, arm


def test_every_colour_of_an_arm_and_its_band_has_one_for_dark_pages():
    for arm, light in colors.ARM_COLORS.items():
        assert colors.DARK[light] == colors.DARK_ARM_COLORS[arm]
        assert colors.DARK[colors.faint(light)] == colors.faint(colors.DARK_ARM_COLORS[arm])


def test_colours_that_some_eye_takes_for_an_arm_are_known():
    near = set()
    for (page, (arms, _)), (sight, _) in itertools.product(PAGES.items(), SIGHTS.items()):
        lines = {*colors.OKABE_ITO, colors.GREY}
        shown = {line: colors.DARK.get(line, line) if page == "dark" else line for line in lines}
        seen = {c: lab(np.clip(SIGHTS[sight] @ linear(c), 0, 1)) for c in [*arms.values(), *shown.values()]}
        near |= {(arm, line) for arm, c in arms.items() for line in lines if ciede2000(seen[c], seen[shown[line]]) < 8}
    assert near == {(arm, line) for arm, lines in colors.NEAR.items() for line in lines}
