"""Input distributions by name, as the flag `--inputs` takes them: `uniform`, `blurred:2`, `subspace:64`, `images`.

The value after the colon is the one parameter of the distribution. Pixels have the variance of the published inputs,
1/3, unless a distribution says otherwise. Images are those of the data set that the teacher learns.
"""

import difflib
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mechsub import arguments

if TYPE_CHECKING:
    from torch import Generator, Tensor

PARAMETERS = {  # name -> what its parameter is, and the range
    "gaussian": ("standard deviation", "> 0", lambda v: v > 0),
    "bernoulli": ("size of a pixel", "> 0", lambda v: v > 0),
    "blurred": ("sigma in pixels", ">= 0", lambda v: v >= 0),
    "subspace": ("dimension", "an integer within 1..784, the size of the input", lambda v: v in range(1, 785)),
    "power_law": ("exponent of power against frequency", "a finite number", lambda v: True),
    "blurred_images": ("sigma in pixels", ">= 0", lambda v: v >= 0),
    "whitened": ("shrinkage", "above 0 and at most 1", lambda v: 0 < v <= 1),
}
NOISE = ("uniform", "gaussian", "bernoulli", "blurred", "subspace", "power_law", "spectrum_matched")  # mean image 0
IMAGES = ("images", "centred", "whitened", "blurred_images", "phase_scrambled", "shuffled_pixels")
MIXTURES = ("mixed", "mixed_at_moments")  # images mixed into uniform noise
ALONE = ("scrambled_centred", "covariance_matched")  # made of the images
CELLS = ("2", "4", "7", "14")  # pixels of a cell of Perlin noise
STUDIED = (  # those that studies compare
    *("uniform", "gaussian:0.25", "gaussian:4"),
    *("blurred:1", "blurred:2", "blurred:4", "blurred:8", "perlin:4"),
    *("subspace:4", "subspace:16", "subspace:64", "subspace:256"),
    *("power_law:1", "power_law:2", "power_law:3"),
    *("images", "centred", "whitened:0.1", "blurred_images:1", "shuffled_pixels"),
    *("phase_scrambled", "scrambled_centred", "spectrum_matched", "covariance_matched"),
    *("mixed:0.5", "mixed:0.75", "mixed_at_moments:0.5", "mixed_at_moments:0.75"),
)


def parsed(text: str) -> tuple[str, float | None]:
    """Name and parameter. ValueError for a text that is no distribution, and for a second way to write one."""
    arguments.text(text, "text")
    name, colon, value = text.partition(":")
    if name not in NOISE + IMAGES:
        near = difflib.get_close_matches(name, NOISE + IMAGES, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(NOISE + IMAGES)}"
        raise ValueError(f"--inputs: no distribution is called {name[:80]!r}{hint}")
    if name not in PARAMETERS:
        if colon:
            raise ValueError(f"--inputs: {name} takes no parameter")
        return name, None
    what, wanted, accepts = PARAMETERS[name]
    number = finite_number(value)
    if number is None or not accepts(number):
        raise ValueError(f"--inputs: {name} needs its {what}, {wanted}, as in {name}:1; not {value[:80]!r}")
    if value != f"{number:g}":
        raise ValueError(f"--inputs: write {name}:{number:g}, not {text[:80]}, so that a cell has one name")
    return name, number


def finite_number(text: str) -> float | None:
    """The number that a text holds; None for any other text, for NaN and for infinity."""
    arguments.text(text, "text")
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def sampler(text: str, images: "Tensor") -> "Callable[[int, Generator], Tensor]":
    """A function (n, generator) -> [n, d_in] that draws from the distribution.

    images: [image, d_in], from which some distributions are made; noise that needs no images always has 784 pixels.
    Raises ValueError for a text that `parsed` refuses, and where needed images are not finite floats [image, d_in].
    """
    from mechsub.inputs import noise

    name, parameter = parsed(text)
    value = math.nan if parameter is None else parameter  # used by those that have one
    makers: dict[str, Callable] = {
        "uniform": lambda: noise.uniform,
        "gaussian": lambda: partial(noise.gaussian, std=value),
        "bernoulli": lambda: partial(noise.bernoulli, std=value),
        "blurred": lambda: noise.blurred_noise(value),
        "subspace": lambda: noise.subspace_noise(int(value)),
        "power_law": lambda: noise.power_law_noise(value),
        "spectrum_matched": lambda: noise.spectrum_matched_noise(images),
        "images": lambda: noise.resampled(images),
        "centred": lambda: noise.resampled(noise.centred(images)),
        "whitened": lambda: noise.resampled(noise.whitened(images, value)),
        "blurred_images": lambda: noise.resampled(noise.blurred(images, value)),
        "phase_scrambled": lambda: noise.phase_scrambled(images),
        "shuffled_pixels": lambda: noise.shuffled_pixels(images),
    }
    return makers[name]()


def parsed_any(text: str) -> tuple[str, float | None]:
    """As `parsed`, with mixed:SHARE, mixed_at_moments:SHARE, perlin:PIXELS, scrambled_centred, covariance_matched."""
    arguments.text(text, "text")
    name, colon, value = text.partition(":")
    known = (*NOISE, *IMAGES, *MIXTURES, *ALONE, "perlin")
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
        raise ValueError(f"--inputs: no distribution is called {name[:80]!r}{hint}")
    if name in ALONE and colon:
        raise ValueError(f"--inputs: {name} takes no parameter")
    if name == "perlin" and value not in CELLS:
        raise ValueError(f"--inputs: perlin needs the pixels of a cell, {', '.join(CELLS)}; not {value[:80]!r}")
    if name in MIXTURES:
        share = finite_number(value)
        if share is None or not 0 < share <= 1 or value != f"{share:g}":
            raise ValueError(f"--inputs: {name} needs the share of images, as in {name}:0.5; not {value[:80]!r}")
        return name, share
    return parsed(text) if name not in (*ALONE, "perlin") else (name, float(value) if value else None)


def any_sampler(text: str, images):
    """As `sampler`, for every text that `parsed_any` takes."""
    from mechsub.inputs import noise

    name, value = parsed_any(text)
    share = math.nan if value is None else value
    makers = {
        "mixed": lambda: noise.mixed(images, noise.uniform, share),
        "mixed_at_moments": lambda: noise.mixed_at_moments(images, noise.uniform, share),
        "perlin": lambda: noise.perlin_noise(int(share)),
        "scrambled_centred": lambda: noise.phase_scrambled(noise.centred(images)),
        "covariance_matched": lambda: noise.covariance_matched_noise(images),
    }
    return makers[name]() if name in makers else sampler(text, images)
