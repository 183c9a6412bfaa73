"""A trained student in parts: layers, what lies along its teacher's displacement, neurons, and what CKA sees."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import lab
from mechsub.designs import population as toys
from mechsub.measures import spectra
from mechsub.measures.attribution import direct_logit_attribution
from mechsub.measures.similarity import linear_cka
from mechsub.models.hooked import cache_activations
from mechsub.models.mlp import rotation
from mechsub.training import removal
from mechsub.training.distillation import accuracy

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


# Hybrids.


@torch.no_grad()
def _hybrids(toy, arm: str, models: dict) -> Iterator[dict]:
    """Accuracy of every network whose W1, W2 and digit head are each of one of the models.

    The student's head is the initial one as far as digits go, and is left out.
    """
    heads = [name for name in models if name != "student"]
    right = {(a, b, c): 0 for a in models for b in models for c in heads}
    for x, y in zip(*(part.split(1000) for part in toy.test), strict=True):
        for a in models:
            h1 = models[a].blocks[0](x[None])
            for b in models:
                h2 = models[b].blocks[1](h1)
                for c in heads:
                    right[a, b, c] = right[a, b, c] + toys.n_right(models[c], 1, h2, y)
    for (a, b, c), count in right.items():
        key = {"kind": "hybrid", "arm": arm, "W1": a, "W2": b, "digits": c}
        yield from _of_each(toy, key, {"accuracy": count / len(toy.test[1])})


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
                scores = accuracy(_moved(toy.init, moved), *toy.test)
                key = {"kind": "along", "direction": direction, "by": by, "side": side}
                yield from _of_each(toy, key, {"accuracy": scores, "share": _squares(moved) / _squares(part, rest)})


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
def specific(toy, model) -> list[dict[str, float]]:
    """What digit logits tell of single images, of every seed: without what is common to all images.

    "recentred" is the accuracy of logits less their mean over the test images: an offset that makes one digit win
    everywhere hides what was learned, and is no part of it. "cosine" is that of the change of these logits, centred
    over the digits too, with the teacher's through the initial head.
    """
    head = {name: value for name, value in toy.init.named_parameters() if name.startswith("unembed.")}
    networks = (toy.init, model, toy.teacher.replace(head))
    start, own, taught = (_centred_logits(network, toy.test[0]) for network in networks)
    recentred = (own.argmax(-1) == toy.test[1].to(own.device)).double().mean(-1)
    mine, theirs = (own - start).flatten(1), (taught - start).flatten(1)
    cosine = (mine * theirs).sum(-1) / (mine.norm(dim=-1) * theirs.norm(dim=-1))
    columns = {"recentred": recentred, "logit_cosine": cosine.nan_to_num(0.0)}
    return [{name: float(value[i]) for name, value in columns.items()} for i in range(len(recentred))]


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
    head = dict(toy.init.named_parameters())
    taught = toy.teacher.replace({name: head[name] for name in head if name.startswith("unembed.")})
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
    """Debiased CKA with the teacher and accuracy of networks, and of last hidden states put together.

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
    states = {name: [] for name in (*models, *made)}
    first, right, seen = {name: [] for name in models}, dict.fromkeys(states, 0), []
    similar = torch.arange(N_SIMILAR) * len(toy.test[1]) // N_SIMILAR
    chosen = torch.zeros(len(toy.test[1]), dtype=torch.bool).index_fill(0, similar, True)
    for x, y, few in zip(*(part.split(1000) for part in (*toy.test, chosen)), strict=True):
        caches = {name: list(cache_activations(model, x).values()) for name, model in models.items()}
        last = {name: cache[1] for name, cache in caches.items()}
        last |= {name: make(last["initial"], last["student"]) for name, make in made.items()}
        for name, h in last.items():
            right[name] = right[name] + toys.n_right(models.get(name, toy.init), 1, h, y)
            states[name].append(h[:, few.to(h.device)])
        for name in models:
            first[name].append(caches[name][0][:, few.to(h.device)])
        seen.append(x[few])
    taught = [h.double() for h in cache_activations(toy.teacher, torch.cat(seen)).values()]
    for layer, group in ((1, first), (2, states)):
        for name, parts in group.items():
            h = torch.cat(parts, 1).double()
            cka = [linear_cka(a, b) for a, b in zip(h, taught[layer - 1], strict=True)]  # one stays in the cache
            found: dict[str, Tensor] = {"cka": torch.stack(cka), "accuracy": right[name] / len(toy.test[1])}
            yield from _of_each(toy, {"kind": "similarity", "arm": name, "layer": layer}, found)


def _within(h: Tensor, span: Tensor) -> Tensor:
    return h @ span @ span.mT
