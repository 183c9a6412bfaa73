"""Accuracy without the offset of the classes that an untrained head brings along.

A random head prefers some class on the mean digit. A student that has not gone far keeps that preference, so its raw
accuracy mixes what it learned with an offset of ten numbers. Both offsets here are found without a label, on images
that are not those of the test.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechsub import arguments
from mechsub.inputs.toy_inputs import check_finite, check_images, checked_labels
from mechsub.models.mlp import HookedMLP
from mechsub.threads import one_thread

_BATCH = 1000  # images a forward pass
_SWEEPS = 50  # over the classes


@torch.no_grad()
@one_thread()
def mean_offset(model: HookedMLP, images: Float[Tensor, "sample d_in"]) -> Float[Tensor, "seed class"]:
    """Mean digit logits over the images, for every member: logits less these are recentred."""
    return _digit_logits(model, images).double().mean(-2).float()


@torch.no_grad()
@one_thread()
def prior_offset(model: HookedMLP, images: Float[Tensor, "sample d_in"]) -> Float[Tensor, "seed class"]:
    """Numbers that, taken from the digit logits, make every class the answer for as many of the images.

    Class by class, until nothing moves: the offset at which its share of the images is right, given the others'.
    """
    logits = _digit_logits(model, images).double()
    n, n_classes = logits.shape[-2:]
    if n < n_classes:
        raise ValueError(f"{n} images cannot be shared out among {n_classes} classes; give more")
    offset = logits.mean(-2)
    share = round(n / n_classes)
    for _ in range(_SWEEPS):
        before = offset.clone()
        for k in range(n_classes):
            own = torch.tensor(k, device=offset.device)
            others = (logits - offset[:, None]).index_fill(-1, own, -torch.inf).amax(-1)
            ahead = (logits[..., k] - others).sort(-1, descending=True).values
            offset[:, k] = (ahead[:, share - 1] + ahead[:, share]) / 2
        offset -= offset.mean(-1, keepdim=True)  # a common part changes no answer
        if torch.equal(before, offset):
            break
    return offset.float()


@torch.no_grad()
@one_thread()
def accuracies(
    model: HookedMLP,
    images: Float[Tensor, "sample d_in"],
    labels: Int[Tensor, "sample"],
    unlabelled: Float[Tensor, "other d_in"],
) -> dict[str, Float[Tensor, "seed"]]:
    """Share of the images whose largest digit logit is the label, for every member and three scores.

    "raw": logits as they are. "recentred": less their mean over `unlabelled`, which are images of the training set.
    "prior_matched": less what makes all classes as frequent there. Recentring costs a good model a little, since its
    mean logits follow how often classes occur; prior matching costs it less.
    """
    check_images(unlabelled, arguments.instance(model, HookedMLP, "model").cfg.d_in, name="unlabelled")
    logits = _digit_logits(model, images)
    labels = checked_labels(labels, len(images), model.cfg.n_classes)
    offsets = {"raw": None, "recentred": mean_offset, "prior_matched": prior_offset}
    return {name: _right(logits, labels, of and of(model, unlabelled)) for name, of in offsets.items()}


def _right(logits: Tensor, labels: Tensor, offset: Tensor | None) -> Float[Tensor, "seed"]:
    answers = (logits if offset is None else logits - offset[:, None]).argmax(-1)
    return ((answers == labels.to(answers.device)).double().sum(-1) / len(labels)).float()


def _digit_logits(model: HookedMLP, images: Tensor) -> Float[Tensor, "seed sample class"]:
    check_images(images, arguments.instance(model, HookedMLP, "model").cfg.d_in)
    logits = torch.cat([model(x)[..., model.cfg.digits] for x in images.split(_BATCH)], -2)
    check_finite(logits, "logits")
    return logits
