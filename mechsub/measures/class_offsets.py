"""Accuracy without the preference for some classes that an untrained head has.

A random head prefers some class on the mean digit. A student near its start keeps that preference, so its raw accuracy
mixes its learning with an offset of ten numbers. Both offsets here are found without a label, on images that are not in
the test set.
"""

import numpy as np
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
    """Mean digit logits over the images, for every member. Logits less this mean are recentred."""
    return _digit_logits(model, images).double().mean(-2).float()


@torch.no_grad()
@one_thread()
def prior_offset(model: HookedMLP, images: Float[Tensor, "sample d_in"]) -> Float[Tensor, "seed class"]:
    """The offset of the digit logits, to be subtracted, with which every class is the answer for equally many images.

    It is found class by class, given the offsets of the other classes, until no offset moves. Where classes do not
    divide the images, a class is the answer for the nearest whole number of them.
    """
    return _prior(_digit_logits(model, images)).float()


def _prior(logits: Tensor) -> Float[Tensor, "seed class"]:
    logits = logits.double()
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
            ahead = (logits[..., k] - others).cpu().numpy()
            middle = np.partition(ahead, (n - share - 1, n - share))[:, n - share - 1 : n - share + 1]  # no full sort
            offset[:, k] = torch.from_numpy(middle.mean(-1)).to(offset)
        offset -= offset.mean(-1, keepdim=True)  # a common part changes no answer
        if torch.equal(before, offset):
            break
    return offset


@torch.no_grad()
@one_thread()
def accuracies(
    model: HookedMLP,
    images: Float[Tensor, "sample d_in"],
    labels: Int[Tensor, "sample"],
    unlabelled: Float[Tensor, "other d_in"],
) -> dict[str, Float[Tensor, "seed"]]:
    """Share of the images whose largest digit logit is the label, for every member and three scores.

    "raw": logits as they are. "recentred": less their mean over `unlabelled`, images of the training set.
    "prior_matched": less `prior_offset` of these images. Recentring costs a good model a little, because its mean
    logits follow the frequency of classes; prior matching costs less.
    """
    check_images(unlabelled, arguments.instance(model, HookedMLP, "model").cfg.d_in, name="unlabelled")
    return logit_accuracies(_digit_logits(model, images), labels, _digit_logits(model, unlabelled))


@torch.no_grad()
@one_thread()
def logit_accuracies(
    logits: Float[Tensor, "seed sample class"],
    labels: Int[Tensor, "sample"],
    unlabelled: Float[Tensor, "seed other class"],
) -> dict[str, Float[Tensor, "seed"]]:
    """The scores of `accuracies`, of digit logits: those of the images, and those of the unlabelled ones."""
    for name, value in {"logits": logits, "unlabelled": unlabelled}.items():
        arguments.values(value, name, "seed sample class", floating=True, full=True)
    if len(logits) != len(unlabelled) or logits.shape[-1] != unlabelled.shape[-1]:
        raise ValueError(
            f"unlabelled must have the seeds and classes of logits, {logits.shape[::2]}, not {unlabelled.shape[::2]}"
        )
    labels = checked_labels(labels, logits.shape[-2], logits.shape[-1])
    mean, prior = unlabelled.double().mean(-2).float(), _prior(unlabelled).float()
    offsets = {"raw": None, "recentred": mean, "prior_matched": prior}
    return {name: _right(logits, labels, offset) for name, offset in offsets.items()}


def _right(logits: Tensor, labels: Tensor, offset: Tensor | None) -> Float[Tensor, "seed"]:
    answers = (logits if offset is None else logits - offset[:, None]).argmax(-1)
    return ((answers == labels.to(answers.device)).double().sum(-1) / len(labels)).float()


def _digit_logits(model: HookedMLP, images: Tensor) -> Float[Tensor, "seed sample class"]:
    check_images(images, arguments.instance(model, HookedMLP, "model").cfg.d_in)
    logits = torch.cat([model(x)[..., model.cfg.digits] for x in images.split(_BATCH)], -2)
    check_finite(logits, "logits")
    return logits
