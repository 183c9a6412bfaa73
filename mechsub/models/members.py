"""Members of stacked networks: their places, and their parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mechsub import arguments


def chosen(model: nn.Module, n: int, members: Sequence[int]) -> tuple[list[int], dict[str, Tensor]]:
    """Places of these members among n, and their parameters in this order; a negative place counts from the end.

    Raises ValueError for an empty list, for a member that does not exist, and for one that is named twice: statistics
    would count it twice.
    """
    named = arguments.items(members, "members", "numbers")
    places = arguments.distinct([range(n)[arguments.position(i, n, "members")] for i in named], "members")
    return places, {name: value[torch.tensor(places)] for name, value in model.named_parameters()}
