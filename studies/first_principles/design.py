"""The conditions that are predicted: every input distribution, every other factor, and several at once.

FRESH came later: 24 that nobody had trained when the further orders were made up, drawn by a seed (inputs without
replacement, two or three options each).
"""

import itertools

from mechsub.designs import conditions
from mechsub.inputs import distributions

INPUTS = distributions.STUDIED
WITH_THEIR_MEAN = ("images", "blurred_images:1", "shuffled_pixels", "phase_scrambled", "mixed:0.5", "mixed:0.75")
_FEW = ("uniform", "blurred:1", "centred", "subspace:64", "power_law:2", "images")
_CROSSED = (  # several factors at once
    "blurred:1+d_model=64+n_layers=3", "blurred:2+d_model=128+n_layers=1+n_aux=10", "centred+d_model=64+n_aux=10",
    "power_law:2+d_model=512+loss=mse", "subspace:256+n_layers=3+n_aux=10", "perlin:4+d_model=64+loss=mse",
    "uniform+d_model=64+n_layers=1+epochs=1", "uniform+d_model=128+n_layers=3+n_aux=10+init=he",
    "scrambled_centred+d_model=128+init=torch", "covariance_matched+n_layers=1+n_aux=10+epochs=1",
    "gaussian:4+d_model=64+activation=tanh", "mixed_at_moments:0.5+n_layers=3+loss=mse",
)  # fmt: skip


def _product(inputs: tuple[str, ...], options: tuple[str, ...]) -> list[str]:
    return [f"{name}+{option}" for option, name in itertools.product(options, inputs)]


DESIGN = (
    *INPUTS,
    *_product(INPUTS, ("epochs=1",)),
    *_product(_FEW, ("d_model=64", "d_model=128", "d_model=512")),
    *_product(_FEW, ("n_layers=1", "n_layers=3")),
    *_product(("uniform", "blurred:1", "centred", "images"), ("n_aux=1+loss=mse", "n_aux=10", "n_aux=30", "loss=mse")),
    *_product(("uniform", "centred"), ("init=torch", "init=he", "activation=gelu", "activation=tanh")),
    *_product(_FEW, ("epochs=20",)),
    *_CROSSED,
)

FRESH = (
    "mixed_at_moments:0.75+d_model=128+init=he+activation=tanh", "power_law:1+init=he+activation=tanh",
    "mixed:0.5+activation=gelu+epochs=1", "power_law:2+d_model=64+loss=mse+epochs=2",
    "gaussian:0.25+d_model=64+n_layers=1+loss=mse", "subspace:4+d_model=512+n_aux=2+epochs=2",
    "centred+d_model=64+n_aux=30+activation=tanh", "images+d_model=128+init=he+activation=gelu",
    "mixed_at_moments:0.5+n_layers=1+loss=mse+epochs=10", "subspace:16+d_model=64+n_layers=1+epochs=1",
    "phase_scrambled+activation=gelu+loss=mse+epochs=2", "subspace:256+n_aux=30+init=he+activation=tanh",
    "blurred:8+n_aux=2+activation=tanh", "spectrum_matched+n_layers=3+loss=mse+epochs=1",
    "gaussian:4+n_layers=3+n_aux=10", "blurred:2+d_model=512+n_layers=1", "mixed:0.75+activation=gelu+epochs=10",
    "covariance_matched+d_model=64+loss=mse", "blurred_images:1+d_model=64+n_aux=30+epochs=1",
    "shuffled_pixels+n_layers=1+loss=mse", "scrambled_centred+d_model=512+loss=mse",
    "perlin:4+d_model=64+n_aux=2+activation=gelu", "uniform+n_layers=1+n_aux=2+init=he", "blurred:4+init=he+loss=mse",
)  # fmt: skip


def is_new(condition: str) -> bool:
    """Whether no student of it was stored before it was predicted."""
    return condition not in conditions.STORED
