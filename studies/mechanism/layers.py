"""A trained student in parts: layers, what lies along its teacher's displacement, neurons, and what CKA sees."""

import itertools
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import lab
from mechsub.designs import population
from mechsub.measures import class_offsets, spectra
from mechsub.measures.attribution import direct_logit_attribution
from mechsub.measures.similarity import linear_cka
from mechsub.measures.unembedding import unembed
from mechsub.models.hooked import cache_activations
from mechsub.models.mlp import rotation
from mechsub.training import removal

N_SIMILAR = 512  # images that CKA is measured on, as in studies.hidden_alignment
N_ATTRIBUTED = 1000
BY: tuple[removal.By, ...] = ("whole", "layer", "neuron")
_BATCH = 250


def records(toy, student, cross) -> Iterator[dict]:
    """Rows of kind hybrid, along, change, neurons and similarity, of every seed."""
    lab.show_progress(0.6, "hybrids")
    own = {"initial": toy.init, "student": student, "teacher": toy.teacher}
    yield from _hybrids(toy, "student", own)
    yield from _hybrids(toy, "cross", {"initial": toy.other, "student": cross})
    lab.show_progress(0.75, "components")
    yield from _along(toy, student)
    lab.show_progress(0.85, "changes")
    for arm, model, start in (("student", student, toy.init), ("cross", cross, toy.other)):
        yield from _changes(toy, arm, model, start)
        yield from _neurons(toy, arm, model, start)
    lab.show_progress(0.95, "similarity")
    yield from _similarities(toy, student, cross)


def _of_each(toy, key: dict, found: dict[str, Tensor]) -> Iterator[dict]:
    for i, member in enumerate(toy.init.seeds):
        yield key | {"member": member} | {name: float(value[i]) for name, value in found.items()}


def _scored(toy, key: dict, model) -> Iterator[dict]:
    """Accuracies of every seed."""
    scores = population.scores(model, toy.init.seeds, toy.test, toy.training)
    return (key | {"member": member} | row for member, row in zip(toy.init.seeds, scores, strict=True))


# Hybrids.


def _hybrids(toy, arm: str, models: dict) -> Iterator[dict]:
    """Accuracies of every network whose W1, W2 and digit head are each of one of the models.

    The student's head is the initial one as far as digits go, and is left out.
    """
    heads = [name for name in models if name != "student"]
    for a, b, c in itertools.product(models, models, heads):
        made = models[a].replace(_part(models[b], "blocks.1.") | _part(models[c], "unembed."))
        key = {"kind": "hybrid", "arm": arm, "W1": a, "W2": b, "digits": c}
        yield from _scored(toy, key, made)


def _part(model, prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in model.named_parameters() if name.startswith(prefix)}


# What lies along the teacher's displacement.


def _along(toy, student) -> Iterator[dict]:
    """The initial network moved by one component of the student's displacement only, and by the other only.

    Null: the component along the displacement of the next seed's teacher.
    """
    gone, way = spectra.displacement(student, toy.init), spectra.displacement(toy.teacher, toy.init)
    shifted = {name: value[rotation(len(value))] for name, value in way.items()}
    for direction, path in (("teacher", way), ("next teacher", shifted)):
        for by in BY:
            path = {name: value for name, value in path.items() if name.startswith("blocks.")}
            part = removal.component(gone, path, by)
            rest = {name: gone[name] - part[name] for name in part}
            for side, moved in (("along", part), ("rest", rest)):
                key = {"kind": "along", "direction": direction, "by": by, "side": side}
                shares = (_squares(moved) / _squares(part, rest)).tolist()
                scores = _scored(toy, key, _moved(toy.init, moved))
                yield from (row | {"share": share} for row, share in zip(scores, shares, strict=True))


def _moved(start, by: dict):
    own = dict(start.named_parameters())
    return start.replace({name: own[name] + value for name, value in by.items()})


def _squares(*parts: dict) -> Float[Tensor, "seed"]:
    return sum(value.flatten(1).square().sum(-1) for part in parts for value in part.values())


# What changes on digits.


@torch.no_grad()
def _changes(toy, arm: str, model, start) -> Iterator[dict]:
    """Changes on the test images against the teacher's: of hidden states, and of digit logits through the initial head.

    Logits are centred over the digits, since a common shift decides nothing. "share" is the part of the teacher's
    displacement that was gone, "explained" the share of the variance of the teacher's change that this explains,
    cosine^2. The logits of "W1" and "W2" are those of hybrids in which this layer alone has moved.
    """
    sums: dict[str, Tensor] = {}
    for x in toy.test[0].split(1000):
        mine, theirs = _moves(model, start, x), _moves(toy.teacher, toy.init, x)
        for of in mine:
            a, b = mine[of].double(), theirs[of].double()
            terms = torch.stack([(p * q).sum((-2, -1)) for p, q in ((a, b), (a, a), (b, b))])
            sums[of] = sums[of] + terms if of in sums else terms
    for of, (ab, aa, bb) in sums.items():
        cosine = (ab / (aa * bb).sqrt()).nan_to_num(0.0)  # of a layer that was frozen
        key = {"kind": "change", "arm": arm, "of": of}
        yield from _of_each(toy, key, {"cosine": cosine, "share": ab / bb, "explained": cosine**2})


@torch.no_grad()
def logit_cosines(toy, model) -> list[float]:
    """Cosine of the change of digit logits with the teacher's through the initial head, of every seed.

    Logits less their mean over images, which an offset of the head would fill, and centred over the digits.
    """
    networks = (toy.init, model, toy.teacher.replace(_part(toy.init, "unembed.")))
    start, own, taught = (_centred_logits(network, toy.test[0]) for network in networks)
    mine, theirs = (own - start).flatten(1), (taught - start).flatten(1)
    cosine = (mine * theirs).sum(-1) / (mine.norm(dim=-1) * theirs.norm(dim=-1))
    return cosine.nan_to_num(0.0).tolist()  # nothing moved


def _centred_logits(model, images: Tensor) -> Float[Tensor, "seed image digit"]:
    logits = torch.cat([model(x)[..., model.cfg.digits] for x in images.split(1000)], dim=-2).double()
    logits = logits - logits.mean(-1, keepdim=True)
    return logits - logits.mean(-2, keepdim=True)


def _moves(model, start, x: Tensor) -> dict[str, Tensor]:
    old = [start.blocks[0](x[None])]
    new = [model.blocks[0](x[None])]
    old.append(start.blocks[1](old[0]))
    new.append(model.blocks[1](new[0]))
    states = {"W1 and W2": new[1], "W1": start.blocks[1](new[0]), "W2": model.blocks[1](old[0])}
    head = _readout(start)
    out = {f"digit logits, {name}": (h - old[1]) @ head for name, h in states.items()}
    return {"h1": new[0] - old[0], "h2": new[1] - old[1], **out}


def _readout(model) -> Float[Tensor, "seed d_model digit"]:
    """Digit directions, centred over the digits."""
    rows = model.W_U[..., model.cfg.digits]
    return rows - rows.mean(-1, keepdim=True)


# Neurons.


def _neurons(toy, arm: str, model, start) -> Iterator[dict]:
    """What every last hidden neuron adds to the margin, the logit of the true digit less the mean of all, and how this
    has changed, through the initial head for teacher and student alike.

    "half" neurons, the largest, hold half of the change; "correlation" is that of a neuron's change with the same
    neuron's in the teacher.
    """
    places = torch.arange(N_ATTRIBUTED) * len(toy.test[1]) // N_ATTRIBUTED
    images, labels = toy.test[0][places], toy.test[1][places]
    before = _margin(start, images, labels)
    moved = _margin(model, images, labels) - before
    taught = toy.teacher.replace(_part(toy.init, "unembed."))
    theirs = _margin(taught, images, labels) - _margin(toy.init, images, labels)
    largest = moved.sort(-1, descending=True).values.cumsum(-1)
    half = (largest < 0.5 * largest[..., -1:]).sum(-1) + 1
    a, b = (m - m.mean(-1, keepdim=True) for m in (moved, theirs))
    yield from _of_each(
        toy,
        {"kind": "neurons", "arm": arm},
        {
            "margin_before": before.sum(-1),
            "margin_change": moved.sum(-1),
            "teacher_change": theirs.sum(-1),
            "half": half,
            "helping": (moved > 0).double().mean(-1),
            "correlation": (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)),
        },
    )


@torch.no_grad()
def _margin(model, images: Tensor, labels: Tensor) -> Float[Tensor, "seed neuron"]:
    total = 0
    for x, y in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
        values = direct_logit_attribution(model, x, range(model.cfg.n_classes)).values
        true = values[:, torch.arange(len(y)), y]
        total = total + (true - values.mean(-2)).double().sum(-2)  # type: ignore[assignment]
    return total / len(labels)  # type: ignore[return-value]


# What CKA sees.


def _similarities(toy, student, cross) -> Iterator[dict]:
    """Debiased CKA with the teacher and accuracies of networks, and of last hidden states put together.

    Only the change of the student's last hidden states within the span of the centred digit directions (9 of 256) can
    change its decisions: "without readout" is the student less this part, "readout alone" the initial states and this
    part. Null: a random span of 9.
    """
    models = {"initial": toy.init, "cross": cross, "student": student}
    span = torch.linalg.qr(_readout(toy.init)[..., :-1]).Q
    generator = torch.Generator().manual_seed(0)
    other = torch.linalg.qr(torch.randn(span.shape, generator=generator)).Q.to(span)
    made = {
        "without readout": lambda old, new: new - _within(new - old, span),
        "readout alone": lambda old, new: old + _within(new - old, span),
        "without random": lambda old, new: new - _within(new - old, other),
    }
    seen = toy.test[0][torch.arange(N_SIMILAR) * len(toy.test[1]) // N_SIMILAR]
    taught = [h.double() for h in cache_activations(toy.teacher, seen).values()]
    similar = {
        (layer, name): torch.stack([linear_cka(a, b) for a, b in zip(h.double(), taught[layer - 1], strict=True)])
        for layer in (1, 2)
        for name, h in _states(models, made, seen, layer).items()
    }
    own, unlabelled = (_logits(models, made, x) for x in (toy.test[0], toy.training[0][: population.UNLABELLED]))
    scores = {
        name: class_offsets.logit_accuracies(own[name], toy.test[1].to(own[name].device), unlabelled[name])
        for name in own
    }
    for (layer, name), cka in similar.items():
        right = {"accuracy": scores[name]["raw"], "recentred": scores[name]["recentred"]}
        yield from _of_each(toy, {"kind": "similarity", "arm": name, "layer": layer}, {"cka": cka, **right})


def _states(models: dict, made: dict, x: Tensor, layer: int) -> dict[str, Tensor]:
    """Hidden states of a layer by network; of the last also those that are put together."""
    states = {name: list(cache_activations(model, x).values())[layer - 1] for name, model in models.items()}
    if layer == 1:
        return states
    return states | {name: make(states["initial"], states["student"]) for name, make in made.items()}


def _logits(models: dict, made: dict, images: Tensor) -> dict[str, Float[Tensor, "seed image digit"]]:
    """Digit logits by network, and of states that are put together through the initial head."""
    parts: dict[str, list[Tensor]] = {}
    for x in images.split(1000):
        for name, h in _states(models, made, x, 2).items():
            head = models.get(name, models["initial"])
            parts.setdefault(name, []).append(unembed(head, h)[..., head.cfg.digits])
    return {name: torch.cat(some, 1) for name, some in parts.items()}


def _within(h: Tensor, span: Tensor) -> Tensor:
    return h @ span @ span.mT
