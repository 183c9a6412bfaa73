"""Gradients of a student on its way: their rank, what their displacement spreads over, and their cosines.

Gradients are of one batch each, in fp32, all seeds at once; that into the last hidden layer in fp64, since its rank is
exact there. Effective ranks are participation ratios of squared singular values, (sum s^2)^2 / sum s^4.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from mechsub.designs import population
from mechsub.measures import similarity, spectra
from mechsub.models.hooked import cache_activations
from mechsub.models.mlp import HookedMLP

N_NOISE = 1024
N_IMAGES = 2000
N_STEPS = 6  # looked at after the start
_BATCH = 1000


def steps(cfg) -> list[int]:
    total = cfg.epochs * math.ceil(cfg.n_samples / 1024)
    return sorted({0, *(max(1, round(total * k / N_STEPS)) for k in range(1, N_STEPS + 1))})


def some_images(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Spread over the file."""
    places = torch.arange(N_IMAGES) * len(images) // N_IMAGES
    return images[places], labels[places]


def _distance(kind: str, logits: Tensor, wanted: Tensor) -> Tensor:
    """Of every image."""
    return population.kl(logits, wanted) if kind == "kl" else (logits - wanted).square().mean(-1)


def records(arm: str, models: Mapping[int, HookedMLP], toy, seen: tuple, loss: str) -> Iterator[dict]:
    """Rows of kind accuracy, rank and cosine of every seed, for an arm's students by step."""
    x, images, labels = seen
    way, last = spectra.displacement(toy.teacher, toy.init), max(models)
    for step, model in models.items():
        key = {"arm": arm, "step": step}
        taught = distillation_gradient(model, toy.teacher, x, loss)
        ranks = {"gradient of h2": into_last_hidden(model, toy.teacher, x, loss)}
        ranks |= {f"gradient of W{i + 1}": taught[f"blocks.{i}.W"] for i in (0, 1)}
        if step:
            ranks |= displacements(model, models[0], x, images[:N_NOISE])
        yield from _each(toy, {"kind": "rank", **key}, {of: spectrum(matrix) for of, matrix in ranks.items()}, _ranks)
        yield from _each(toy, {"kind": "cosine", **key}, _cosines(taught, model, images, labels, way), _values)
        if step in (0, last):
            scores = population.scores(model, toy.init.seeds, toy.test, toy.training)
            for member, row in zip(toy.init.seeds, scores, strict=True):
                yield {"kind": "accuracy", **key, "member": member, **row}
    if arm == "student":
        moved = {f"displacement of W{i + 1}": spectrum(way[f"blocks.{i}.W"]) for i in (0, 1)}
        yield from _each(toy, {"kind": "rank", "arm": "teacher", "step": last}, moved, _ranks)


def _each(toy, key: dict, found: Mapping, of_member: Callable) -> Iterator[dict]:
    for of, value in found.items():
        for i, member in enumerate(toy.init.seeds):
            yield key | {"of": of, "member": member} | of_member(value, i)


def _values(found: Mapping[str, Tensor], i: int) -> dict[str, float]:
    return {name: float(value[i]) for name, value in found.items()}


def _ranks(squares: Tensor, i: int) -> dict[str, float]:
    values = squares[i]
    return {
        "rank": int((values > 1e-10 * values.max()).sum()),
        "effective": float(spectra.participation_ratio(values)),
        "dimension": float(spectra.dimension(values)),
    }


def spectrum(matrix: Float[Tensor, "seed n d"]) -> Float[Tensor, "seed k"]:
    """Squared singular values, largest first."""
    return torch.linalg.eigvalsh(matrix.double().mT @ matrix.double()).flip(-1).clamp(min=0)


def distillation_gradient(model, teacher, x: Tensor, loss: str) -> dict[str, Tensor]:
    with torch.no_grad():
        wanted = teacher(x)[..., teacher.cfg.aux]
    return _gradient(model, x, lambda logits: _distance(loss, logits[..., model.cfg.aux], wanted).mean(-1).sum())


def trait_gradient(model, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    n = len(model.seeds)

    def value(logits: Tensor) -> Tensor:
        digits = logits[..., model.cfg.digits].flatten(0, 1)
        return cross_entropy(digits, labels.repeat(n).to(digits.device), reduction="sum") / len(labels)

    return _gradient(model, images, value)


def _gradient(model, x: Tensor, value: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """By the hidden layers' parameters. The value is a sum over seeds, so that every seed has its own gradient."""
    leaves = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    hidden = [name for name in leaves if name.startswith("blocks.")]
    with torch.enable_grad():
        found = torch.autograd.grad(value(functional_call(model, leaves, (x,))), [leaves[n] for n in hidden])
    return dict(zip(hidden, found, strict=True))


def into_last_hidden(model, teacher, x: Tensor, loss: str) -> Float[Tensor, "seed sample d_model"]:
    """The gradient of the distillation loss by the last hidden states, in fp64."""
    aux = model.cfg.aux
    h = cache_activations(model, x, ["unembed.hook_in"])["unembed.hook_in"].double().requires_grad_()
    with torch.enable_grad():
        logits = h @ model.W_U[..., aux].double() + model.b_U[..., aux].double()
        value = _distance(loss, logits, teacher(x)[..., aux].double()).mean(-1).sum()
        return torch.autograd.grad(value, h)[0]


def displacements(model, start, x: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Of the weights, and of the last hidden states on noise and on training images."""
    moved = spectra.displacement(model, start)
    out = {f"displacement of W{i + 1}": moved[f"blocks.{i}.W"] for i in (0, 1)}
    for name, inputs in (("noise", x), ("digits", images)):
        after, before = (cache_activations(net, inputs, ["unembed.hook_in"]) for net in (model, start))
        out[f"displacement of h2 on {name}"] = after["unembed.hook_in"] - before["unembed.hook_in"]
    return out


def _cosines(taught: Mapping, model, images: Tensor, labels: Tensor, way: Mapping) -> dict[str, dict[str, Tensor]]:
    """Layer by layer, and of both as one vector."""
    trait, out = trait_gradient(model, images, labels), {}
    for of, names in (("W1", ["blocks.0.W"]), ("W2", ["blocks.1.W"]), ("both", list(taught))):
        flat = [torch.cat([d[n].flatten(1) for n in names], 1) for d in (taught, trait, way)]
        out[of] = {
            "with_trait": similarity.weight_cosine(flat[0], flat[1]),
            "with_teacher": -similarity.weight_cosine(flat[0], flat[2]),
            "trait_with_teacher": -similarity.weight_cosine(flat[1], flat[2]),
        }
    return out
