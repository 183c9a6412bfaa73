"""What makes entanglement of numbers and animals in models of which everything is known? Small models by design.

A cell trains a Llama of two blocks on texts made by rule (grammar.py), in which every number and animal is one token
and no rule joins them. The design crosses width (with a learning rate that falls with it: no one rate teaches all), the
number of number words, and whether embeddings are tied. Measured are the interactions of 110 numbers and the animals,
both ways, in five wordings that were not trained on: size, how far other wordings bring it back, how far the two agree,
and what the rows of W_U and chance in the texts (counts) say of either; from W_U alone, how far numbers move when an
animal rises by one nat (side_effect), their cosines (overlap), and what holding all numbers leaves of the cheapest way
to raise an animal (room, 1 / price of studies.bottleneck).

Where embeddings are untied, three more models are trained, from the same start and in the same order, over rows of W_U
that are drawn at random and held, with the final norm:

* random: the rows as they are drawn. Their products are no consequence of training.
* exchanged: the same, with the rows of numbers of like frequency exchanged two by two. Does an interaction follow the
  rows, or stay with the number?
* orthogonal: rows of numbers at right angles to all rows of animals, with doses of one animal's row added to some. In
  random, rows of numbers are at right angles to as many random directions, and the doses are of random rows.

The state at the number's places after the first block is exchanged with another number's (exchange); so are those at
all other places (exchange_elsewhere). Null: the untrained model. Unit: the seed, of weights and texts.

    python -m studies.organisms --d-model 64 128 256 --n-numbers 110 1110 --tied false true --seed 0 1 2 3 --workers 2
"""

from dataclasses import dataclass
from typing import Literal

from mechsub import lab

DOSES = (0.25, 0.5, 0.75, 1.0)  # of an animal's row, added to a number's
ARMS = {
    "untrained": "untrained (null)", "trained": "trained", "random": "random rows, held",
    "exchanged": "random rows, numbers' exchanged", "orthogonal": "random rows, numbers orthogonal to animals",
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    d_model: lab.Count = lab.option(128, "width, a multiple of 32")
    n_numbers: lab.Count = lab.option(110, "number words, each a token; of the first 110 the interaction is measured")
    tied: bool = lab.option(False, "whether W_E and W_U are one matrix")
    n_animals: lab.Count = lab.option(32, "animals, each a token")
    n_layers: lab.Count = lab.option(2, "blocks")
    n_texts: lab.Count = lab.option(60_000, "texts; those of one training are fewer by default")
    updates: lab.Count = lab.option(700, "updates of a training")
    batch_size: lab.Count = lab.option(64, "texts of an update")
    lr: lab.Positive = lab.option(1e-2, "largest learning rate of 64 neurons; of others in inverse proportion to width")
    precision: Literal["fp32", "bf16"] = lab.option("bf16", "of products in training")
    seed: lab.Index = lab.option(0, "seed of weights, texts and order: the replicate")

    def __post_init__(self):
        if self.d_model % 32:
            raise ValueError(f"--d-model must be a multiple of 32, the width of a head, not {self.d_model}")
        if self.n_numbers > 1110:
            raise ValueError("--n-numbers can be at most 1110, those of up to three digits")
        if not 8 <= self.n_animals <= min(64, self.d_model // 2):
            raise ValueError(
                f"--n-animals must be 8 to {min(64, self.d_model // 2)}: numbers are made orthogonal to all of them"
            )
        if self.n_numbers < self.n_animals:
            raise ValueError("--n-numbers must be at least --n-animals: each of them gets a dose of one animal")


_TINY: dict = {
    "d_model": 32, "n_animals": 8, "n_numbers": 24, "n_texts": 96, "updates": 4, "batch_size": 16,
    "precision": "fp32",
}  # fmt: skip
study = lab.Study(
    version=2,
    probes=(Config(**_TINY), Config(**_TINY, tied=True, n_layers=1, seed=1)),
)
