"""`studies.hidden_alignment` of the toy: every network is looked at once, and then compared with its teacher."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population
from mechsub.lazy import utilities
from studies.hidden_alignment import ARMS, SIMILARITY

PAIRWISE = ("rbf_cka", "mutual_knn")  # cost the square of the samples
PAIRWISE_IMAGES = 256
STITCHING = ("stitch_into_teacher", "stitch_into_student")
WEIGHTS = ("weight_cosine", "projection_share")


@threads.made_by_one
def run(cfg) -> Iterator[dict]:
    lab.show_progress(0.0, "teachers")
    toy = population.teachers(cfg)
    networks = gather(toy, cfg)
    teacher = next(networks)
    for network in networks:
        yield from compare(network, teacher, toy.teacher.seeds, toy.fit["precision"])
    yield {
        "provenance": {
            **population.provenance(toy, cfg),
            "measured_on": f"{cfg.n_images} test images, evenly spread over the file, and as many fresh noise images; "
            f"{' and '.join(PAIRWISE)} at most {PAIRWISE_IMAGES} of them; stitching and accuracy: all test images",
        }
    }


@dataclass(frozen=True)
class Network:
    """What was seen of a network; the teacher has no scores, and untrained networks have not moved."""

    arm: str
    step: int
    states: dict[str, dict[str, Tensor]]  # of digits and noise: hook -> hidden states [seed, sample, d_model]
    moved: list[Tensor]  # of every layer: what training added to W [seed, d_in, d_model]
    scores: dict[str, list[float]]  # accuracies on test images [seed]
    stitched: list[dict[str, Tensor]]  # of every layer: accuracies [seed] where it changes places with the teacher's


def gather(toy: population.Toy, cfg) -> Iterator[Network]:
    """The teacher, the references, and the students of every arm and step; one at a time, since states are large."""
    arms = (*ARMS, "cross_all") if cfg.cross_all else ARMS
    trained = population.students(toy, arms, cfg, lab.span(0.2, 0.8, "students"))
    images, labels = getattr(ms.images, cfg.dataset)("test")
    unlabelled = getattr(ms.images, cfg.dataset)("train")[0][: population.UNLABELLED]
    noise = ms.noise.uniform(cfg.n_images, utilities.derive_generator(cfg.seed, "hidden_alignment"))
    # MNIST's first test images are the cleaner half's, so the sample is spread over the file.
    inputs = {"digits": images[_spread(len(images), cfg.n_images)], "noise": noise}

    def seen(body, start) -> tuple[dict, list[Tensor]]:
        states = {on: ms.hooked.cache_activations(body, x) for on, x in inputs.items()}
        return states, [] if body is start else [b.W - a.W for a, b in zip(start.blocks, body.blocks, strict=True)]

    yield Network("teacher", toy.steps[-1], *seen(toy.teacher, toy.init), {}, [])
    bodies = {("reference", 0): toy.init, ("cross_reference", 0): toy.other}
    bodies |= {(arm, step): body for arm, steps in trained.items() for step, body in steps.items()}
    tested = list(population.batches(images, labels, (toy.teacher,)))
    for i, ((arm, step), body) in enumerate(bodies.items()):
        lab.show_progress(0.8 + 0.2 * i / len(bodies), f"metrics, {arm}")
        raw, stitched = _stitching(body, toy.teacher, (images, labels), tested)
        scores = {"accuracy": raw, "recentred": ms.accuracies(body, images, labels, unlabelled)["recentred"].tolist()}
        yield Network(arm, step, *seen(body, population.start(toy, arm)), scores, stitched)


def _spread(n: int, count: int) -> list[int]:
    """`count` places, evenly spread over n."""
    return [i * n // count for i in range(count)]


def _stitching(student, teacher, test: tuple[Tensor, Tensor], seen: list[tuple]) -> tuple[list[float], list[dict]]:
    """The student's accuracy; of every layer, that of the teacher with its state, and of the reverse [seed]."""
    last, right, n = student.cfg.n_layers - 1, torch.zeros(()), len(test[1])
    found: list[dict] = [dict.fromkeys(STITCHING, 0.0) for _ in range(last + 1)]
    for (labels, own), (_, theirs) in zip(population.batches(*test, (student,)), seen, strict=True):
        right = right + population.n_right(student, last, own[last], labels)
        for layer, sums in enumerate(found):
            sums[STITCHING[0]] += population.n_right(teacher, layer, own[layer], labels)
            sums[STITCHING[1]] += population.n_right(student, layer, theirs[layer], labels)
    return (right / n).tolist(), [{name: count / n for name, count in sums.items()} for sums in found]


def compare(student: Network, teacher: Network, seeds: Sequence[int], products: str) -> Iterator[dict]:
    """A row for every seed, layer and what was compared (digits, noise, weights), with the student's accuracy."""

    def rows(layer: int, on: str, values: dict) -> Iterator[dict]:
        keys = {"arm": student.arm, "step": student.step, "products": products, "layer": layer, "on": on}
        for i, member in enumerate(seeds):
            yield keys | {"member": member} | {k: float(v[i]) for k, v in (student.scores | values).items()}

    for on, states in student.states.items():
        for layer, (name, own) in enumerate(states.items()):
            found = similarities(own, teacher.states[on][name], f"{student.arm}, step {student.step}, {name} on {on}")
            yield from rows(layer, on, found | (student.stitched[layer] if on == "digits" else {}))
    for layer, pair in enumerate(zip(student.moved, teacher.moved, strict=False)):  # none of an untrained network
        yield from rows(layer, "weights", {name: getattr(ms.similarity, name)(*pair) for name in WEIGHTS})


def similarities(own: Tensor, theirs: Tensor, where: str) -> dict[str, list]:
    """Each of SIMILARITY of every member's states [sample, d_model] with its teacher's."""
    some = _spread(own.shape[1], min(PAIRWISE_IMAGES, own.shape[1]))

    def measured(i: int) -> dict:
        pair, values = (own[i].double(), theirs[i].double()), {}
        few = [v[some] for v in pair]
        for metric in SIMILARITY:
            with lab.part(f"{metric} of {where}"):
                values[metric] = ms.similarity.METRICS[metric](*(few if metric in PAIRWISE else pair))
        return values

    # One member's states stay in the cache: twice as fast as all members at once.
    found = ms.distillation.each_member(measured, len(own))
    return {metric: [values[metric] for values in found] for metric in SIMILARITY}
