"""Do a student's hidden layers move toward the teacher's when it only sees auxiliary logits of noise, and where?

For every arm, hidden layer and chosen training step, the student's activations are compared with its teacher's, on
test digits and on fresh noise, by every metric of `similarity`; by stitching (the student's layer put into the
teacher, and the reverse, scored in accuracy on test digits); and in weight space by the cosine and the projection
share of its weight change on the teacher's. Two nulls are lines in every figure: the untrained reference, and a
student distilled from the next seed's initialisation. How well a metric tells the accuracy is its rank
correlation with it, over seeds within an arm and over all trained students. Unit of replication: the seed.

With `--model` a language model: are the states under "You love owls" like those under the number that this prompt
favours? Per layer, over all animals that are one token, debiased CKA and the cosine of centred states at the last
position, against shuffled pairs; control: the number that the prompt favours least. Unit of replication: the animal.

    python -m studies.hidden_alignment --model smollm2-135m-instruct --metric cosine
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import love, population
from mechsub.designs import population as toys
from mechsub.lazy import torch, utilities

ARMS = ("student_aux", "student_all", "cross_aux")
SIMILARITY = (
    "debiased_cka",
    "biased_cka",
    "rbf_cka",
    "procrustes",
    "identity_distance",
    "mutual_knn",
    "linear_r2",
    "linear_r2_reverse",
    "cosine",
    "unit_correlation",
    "gate_agreement",
)
PAIRWISE = ("rbf_cka", "mutual_knn")  # cost the square of the samples
PAIRWISE_IMAGES = 256
TOY_OPTIONS = (
    *("n_seeds", "n_aux", "n_layers", "d_model", "epochs", "lr", "batch_size", "loss", "noise", "dataset", "precision"),
    *("n_steps", "n_images", "cross_all"),
)
LANGUAGE_OPTIONS = ("adapter", "weights", "n_permutations", "format", "spaced", "dtype")
STITCHING = ("stitch_into_teacher", "stitch_into_student")
WEIGHTS = ("weight_cosine", "projection_share")
MAIN = ("debiased_cka", "cosine", "stitch_into_teacher")


@dataclass(frozen=True)
class Config:
    model: str = lab.option("toy", "the toy, or a language model: smollm2-135m-instruct, Hugging Face id, folder")
    adapter: str = lab.option(*love.ADAPTER)
    weights: love.Weights = lab.option(*love.WEIGHTS)
    n_seeds: lab.Count = lab.option(25, "seeds: one reference, teacher and set of students each")
    n_aux: lab.Count = lab.option(3, "auxiliary logits")
    n_layers: lab.Count = lab.option(2, "hidden layers")
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer")
    epochs: lab.Count = lab.option(5, "epochs of the teacher, and of every student")
    lr: lab.Positive = lab.option(3e-4, "learning rate of Adam")
    batch_size: lab.Count = lab.option(1024, "images a step")
    loss: Literal["kl", "mse"] = lab.option("kl", "distillation loss on the chosen logits")
    noise: Literal["per_member", "shared"] = lab.option("per_member", "own noise images for every seed, or common ones")
    dataset: Literal["mnist", "fashion_mnist"] = lab.option("mnist", "what the teacher learns")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products in training")
    n_steps: lab.Count = lab.option(2, "training steps looked at after the start, evenly spaced to the last")
    n_images: lab.Count = lab.option(512, "images or noise samples that similarity is measured on (n x n: 256)")
    n_permutations: lab.Count = lab.option(999, "of the pairs of animal and number (language models)")
    format: Literal["auto", "chat", "published", "plain"] = lab.option(
        "auto", "prompt format (language models), as in token_entanglement, whose matrices are used"
    )
    spaced: bool = lab.option(True, "numbers are scored after a space (language models)")
    dtype: Literal["fp32", "bf16"] = lab.option("fp32", "of weights and activations (language models)")
    cross_all: bool = lab.option(False, "also the cross-initialisation student that sees all logits")
    seed: lab.Index = lab.option(0, "first seed")
    metric: Literal[
        "debiased_cka",
        "biased_cka",
        "rbf_cka",
        "procrustes",
        "identity_distance",
        "mutual_knn",
        "linear_r2",
        "linear_r2_reverse",
        "cosine",
        "unit_correlation",
        "gate_agreement",
        "stitch_into_teacher",
        "stitch_into_student",
        "weight_cosine",
        "projection_share",
    ] = lab.option(MAIN, "what the figure and the table show", display=True)

    def __post_init__(self):
        if self.n_seeds < 2:
            raise ValueError("--n-seeds must be at least 2: intervals are over seeds")
        population.refuse_one_logit(self.n_aux, self.loss)
        if not 40 <= self.n_images <= 10_000:
            raise ValueError("--n-images must be 40 (for held-out regression and neighbours) to 10000, all test images")
        toy = self.model == "toy"
        lab.refuse_ignored(self, LANGUAGE_OPTIONS if toy else TOY_OPTIONS, f"with --model {self.model}")

    def check(self, metric: tuple[str, ...]) -> None:
        if self.model != "toy" and not set(metric) & {"debiased_cka", "cosine"}:
            raise ValueError("--metric of a language model is debiased_cka or cosine")


def check(cfg: Config) -> None:
    if cfg.model == "toy":
        population.refuse_too_large(cfg, models=3 + (len(ARMS) + cfg.cross_all) * cfg.n_steps)
    else:
        love.check_model(cfg)


def upstream(cfg: Config) -> dict:
    return {} if cfg.model == "toy" else {"matrices": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, matrices: lab.Stored | None = None) -> Iterator[dict]:
    return _run_toy(cfg) if matrices is None else _run_language(cfg, matrices)


def _run_language(cfg: Config, matrices: lab.Stored) -> Iterator[dict]:
    from studies.hidden_alignment import language

    yield from language.run(cfg, matrices)


def _run_toy(cfg: Config) -> Iterator[dict]:
    yield from _toy_records(cfg)


@threads.made_by_one
def _toy_records(cfg: Config) -> Iterator[dict]:
    lab.show_progress(0.0, "teachers")
    toy = toys.teachers(cfg)
    arms = (*ARMS, "cross_all") if cfg.cross_all else ARMS
    trained = toys.students(toy, arms, cfg, lab.span(0.2, 0.8, "students"))
    images, labels = getattr(ms.images, cfg.dataset)("test")
    compared = _Comparison(toy, images, labels, cfg)
    yield from compared.records("reference", 0, toy.init, toy.init)
    yield from compared.records("cross_reference", 0, toy.other, toy.other)
    for i, (arm, steps) in enumerate(trained.items()):
        lab.show_progress(0.8 + 0.2 * i / len(arms), f"metrics, {arm}")
        for step, student in steps.items():
            yield from compared.records(arm, step, student, toys.start(toy, arm))
    yield {
        "provenance": {
            **toys.provenance(toy, cfg),
            "measured_on": f"{cfg.n_images} test images, evenly spread over the file, and as many fresh noise images; "
            f"{' and '.join(PAIRWISE)} at most {PAIRWISE_IMAGES} of them; stitching and accuracy: all test images",
        }
    }


class _Comparison:
    """A teacher, what it does on the inputs compared, and one method: the rows of a student beside it."""

    def __init__(self, toy, test_images, test_labels, cfg: Config):
        noise = ms.noise.uniform(cfg.n_images, utilities.derive_generator(cfg.seed, "hidden_alignment"))
        # MNIST's first test images are the cleaner half's, so the sample is spread over the file.
        self.on = {"digits": test_images[_spread(len(test_images), cfg.n_images)], "noise": noise}
        self.few = _spread(cfg.n_images, min(PAIRWISE_IMAGES, cfg.n_images))
        self.seen = {on: ms.hooked.cache_activations(toy.teacher, x) for on, x in self.on.items()}
        self.teacher, self.change = toy.teacher, _change(toy.teacher, toy.init)
        self.test, self.products = (test_images, test_labels), toy.fit["precision"]
        self.unlabelled = getattr(ms.images, cfg.dataset)("train")[0][: population.UNLABELLED]
        self.stitched = list(toys.batches(*self.test, (toy.teacher,)))

    def records(self, arm: str, step: int, student, start) -> Iterator[dict]:
        """One row per seed, layer and what was compared (digits, noise, weights), with the student's accuracy."""
        raw, stitched = self._stitching(student)
        recentred = ms.accuracies(student, *self.test, self.unlabelled)["recentred"].tolist()
        scores = [{"accuracy": a, "recentred": b} for a, b in zip(raw, recentred, strict=True)]
        keys = {"arm": arm, "step": step, "products": self.products}
        for on in self.on:
            for layer, metrics in enumerate(self._similarity(student, on, f"{arm}, step {step}")):
                metrics |= stitched[layer] if on == "digits" else {}
                yield from self._rows({**keys, "layer": layer, "on": on}, metrics, scores)
        for layer, metrics in enumerate(self._weights(student, start) if student is not start else []):
            yield from self._rows({**keys, "layer": layer, "on": "weights"}, metrics, scores)

    def _rows(self, keys: dict, metrics: dict, scores: list[dict[str, float]]) -> Iterator[dict]:
        for i, member in enumerate(self.teacher.seeds):
            values = {name: float(value[i]) for name, value in metrics.items()}
            yield keys | {"member": member} | scores[i] | values

    def _similarity(self, student, on: str, who: str) -> list[dict]:
        def measured(pair: tuple, place: str) -> dict:
            few, values = [v[self.few] for v in pair], {}
            for metric in SIMILARITY:
                with lab.part(f"{metric} of {who}, {place} on {on}"):
                    values[metric] = ms.similarity.METRICS[metric](*(few if metric in PAIRWISE else pair))
            return values

        out = []
        for name, hidden in ms.hooked.cache_activations(student, self.on[on]).items():
            seen = self.seen[on][name]
            # One member's states stay in the cache: twice as fast as all members at once.
            rows = ms.distillation.each_member(
                lambda i, own=hidden, theirs=seen, name=name: measured((own[i].double(), theirs[i].double()), name),
                len(hidden),
            )
            out.append({metric: [row[metric] for row in rows] for metric in SIMILARITY})
        return out

    def _stitching(self, student) -> tuple[list[float], list[dict]]:
        """The student's accuracy, and for every layer that of the teacher with its state, and the reverse."""
        last = student.cfg.n_layers - 1
        right = torch.zeros(())
        found: list[dict] = [dict.fromkeys(STITCHING, 0.0) for _ in range(last + 1)]
        for (labels, own), (_, seen) in zip(toys.batches(*self.test, (student,)), self.stitched, strict=True):
            right = right + toys.n_right(student, last, own[last], labels)
            for layer, (body, states) in enumerate(zip(own, seen, strict=True)):
                found[layer][STITCHING[0]] += toys.n_right(self.teacher, layer, body, labels)
                found[layer][STITCHING[1]] += toys.n_right(student, layer, states, labels)
        n = len(self.test[1])
        return (right / n).tolist(), [{name: count / n for name, count in layer.items()} for layer in found]

    def _weights(self, student, start) -> list[dict]:
        moved = _change(student, start)
        pairs = [(moved[f"blocks.{n}.W"], self.change[f"blocks.{n}.W"]) for n in range(student.cfg.n_layers)]
        return [{name: getattr(ms.similarity, name)(*pair) for name in WEIGHTS} for pair in pairs]


def _spread(n: int, count: int) -> list[int]:
    """`count` places, evenly spread over n."""
    return [i * n // count for i in range(count)]


def _change(model, start) -> dict:
    before = dict(start.named_parameters())
    return {name: value - before[name] for name, value in model.named_parameters()}


study = lab.Study(version=2, probes=(
    Config(n_seeds=2, d_model=16, epochs=1, precision="fp32", n_images=300, cross_all=True),
    Config(
        n_seeds=2, n_aux=2, n_layers=1, d_model=48, epochs=1, batch_size=4096, loss="mse", noise="shared",
        dataset="fashion_mnist", precision="fp32", n_steps=1, n_images=40, seed=2,
    ),
    Config(model="tests/probes/models/tiny", spaced=False, n_permutations=9),
))  # fmt: skip
