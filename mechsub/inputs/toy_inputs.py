"""Checks of the toy's arguments: images, labels and the logits that are read. Torch would broadcast, clip or cut some
wrong arguments and return a number; here they raise one line."""

import numbers

import torch
from torch import Tensor

from mechsub import arguments


def check_images(images, d_in: int | None, n_members: int | None = None, name: str = "images") -> None:
    """Raise unless they are finite floats [sample, d_in], or [member or 1, sample, d_in] where `n_members` is given.

    Images of any width fit where d_in is None.
    """
    check_shape(images, d_in, n_members, name)
    check_finite(images, name)


def check_shape(images, d_in: int | None, n_members: int | None = None, name: str = "images") -> None:
    """`check_images` without reading the values."""
    _check_tensor(images, name)
    if d_in is None:
        d_in = images.shape[-1] if images.ndim else 0
    if not images.is_floating_point():
        raise ValueError(
            f"{name} are {_kind(images)}; give floats, for bytes the scale of mnist(): {name}.float() / 127.5 - 1"
        )
    per_member = n_members is not None and images.ndim == 3 and images.shape[0] in (1, n_members)
    if images.shape[-1:] != (d_in,) or not (images.ndim == 2 or per_member):
        more = "" if n_members is None else f" or [{n_members}, sample, {d_in}]"
        raise ValueError(f"{name} have the shape {list(images.shape)}, not [sample, {d_in}]{more}")
    if not images.numel():
        raise ValueError(f"there are no {name}")


def checked_labels(labels, n: int, n_classes: int, name: str = "labels") -> Tensor:
    """The labels as int64; raises unless they are n integers of 0..n_classes - 1, one for each image."""
    _check_tensor(labels, name)
    if labels.ndim == 2 and labels.shape == (n, n_classes):
        raise ValueError(f"{name} have the shape {list(labels.shape)}, as one-hot rows do; give {name}.argmax(-1)")
    if labels.ndim != 1:
        raise ValueError(f"{name} have the shape {list(labels.shape)}; give one row of {n}, for all members alike")
    if len(labels) != n:
        raise ValueError(f"there are {n} images and {len(labels)} {name}; every image needs its own")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} are {_kind(labels)}; give class numbers: {name}.long()")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= n_classes:
        raise ValueError(f"{name} reach from {low} to {high}, but the model has the classes 0..{n_classes - 1}")
    return labels.long()


def check_outputs(outputs, d_vocab: int, loss: str | None = None) -> None:
    """Raise unless the slice selects logits that exist, and more than one for a loss that compares them."""
    if not isinstance(outputs, slice):
        arguments.refuse("outputs", "a slice, such as model.cfg.aux or slice(10, 13)", outputs)
    ends = [end for end in (outputs.start, outputs.stop, outputs.step) if end is not None]
    if any(isinstance(end, bool) or not isinstance(end, numbers.Integral) for end in ends) or (outputs.step or 1) < 1:
        raise ValueError(f"outputs must be a slice of integers with a step of at least 1, not {outputs}")
    if any(not -d_vocab <= end <= d_vocab for end in ends[:2]):
        raise ValueError(f"outputs {_ends(outputs)} reach beyond the {d_vocab} logits")
    n = len(range(d_vocab)[outputs])
    if not n:
        raise ValueError(f"outputs {_ends(outputs)} select none of the {d_vocab} logits")
    if n == 1 and loss is not None:
        check_loss_of_one(loss)


def check_loss_of_one(loss: str) -> None:
    """Raise for a loss that learns nothing from one logit."""
    if loss in ("kl", "hard"):
        raise ValueError(
            f"one logit teaches nothing with loss {loss!r}, since its softmax is 1; use 'mse' or more logits"
        )


def check_finite(x: Tensor, name: str = "inputs") -> None:
    # Extremes are NaN or infinite where any value is, and need no mask of all values.
    low, high = torch.aminmax(x.detach())
    if not torch.isfinite(high.double() - low.double()):
        raise ValueError(f"{name} hold NaN or infinite values")


def _check_tensor(x, name: str) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor, not {type(x).__name__}; give torch.as_tensor({name})")


def _kind(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _ends(outputs: slice) -> str:
    return ":".join("" if end is None else str(end) for end in (outputs.start, outputs.stop))
