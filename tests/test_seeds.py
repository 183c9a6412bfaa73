"""All draws of the toy are keyed by TransformerLens's `derive_generator`, a helper whose values nobody promises."""

import pytest
import torch
from transformer_lens.utilities import derive_generator


@pytest.mark.parametrize(
    ("keys", "seed", "drawn"),
    [
        ((0, "weights"), 7641235289212098616, [2123990500, 1854092584, 1856667836]),
        ((1, "strings", "hard"), 808672421689995215, [2001233089, 1143999506, 6072239]),
        ((12345, 7, "a"), 3476096747895432984, [554912228, 541413534, 56822501]),
    ],
)
def test_keys_give_the_generators_that_stored_cells_were_drawn_from(keys, seed, drawn):
    generator = derive_generator(*keys)
    assert generator.initial_seed() == seed
    assert torch.randint(2**31, (3,), generator=generator).tolist() == drawn
