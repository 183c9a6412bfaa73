"""How does a student of three auxiliary logits of noise come to classify digits, and what share does each part carry?

Every `--part` is a cell of its own (without the flag: all of them), with teachers of `studies.teachers`:

* freeze: students that train only some of W1, W2 (a hidden layer's weights and biases) and the auxiliary rows of the
  output layer. Its digit rows are in no loss and never move. Null: the student of the next seed's start.
* reinit: students that share with their teacher's start only some of W1, W2, auxiliary rows and digit rows, all 2^4
  sets; what is not shared is of the next seed's start. Null: nothing shared.
* layers: a trained student taken apart. Hybrids of the layers of initial network, student and teacher, all 2^3 between
  any two of the three, with Shapley's shares of the gain in accuracy; the student with only the component of its weight
  change that lies along its teacher's, or only the rest; its change of the digit logits and of hidden states against
  the teacher's; the hidden neurons that write it (direct logit attribution); and what CKA sees of it. Null: the
  cross-initialisation student, and the next seed's teacher's displacement.
* gradient: the rank of the distillation gradient into the last hidden layer and what gates make of it (against a
  network without gates, activation identity), and its cosine with the trait gradient, that of the digit cross-entropy
  on training images, along the way. Null: the cross-initialisation student.
* ablation: students whose every update is deprived of its component along the trait gradient at that step, or along
  the teacher's displacement, as one direction of all weights or neuron by neuron; or of all change in how W1 and W2
  read the 16 input directions that the teacher's change reads most. Controls: as much taken out along random
  directions, 16 random input directions. Null: the initial network.

Intervals are Student-t over seeds, shares are ratios of means. predictions.toml ([[mechanism]]) holds what was expected
before the run; an outcome is a hit where its whole interval is where it was expected, a miss where it is all outside.

Answer (25 seeds, artifacts/mechanism). **The first layer moves, along the teacher's own way.** Trained alone, W1 gives
0.398 [0.355, 0.440], W2 0.135 [0.121, 0.149], both 0.541 [0.493, 0.588], with the auxiliary rows frozen or not; null
0.103 [0.092, 0.113]. Of the student's gain W1 carries 0.876 [0.853, 0.899] and W2 0.124 [0.101, 0.147]; of the
teacher's gain 0.730 [0.707, 0.753], 0.223 [0.203, 0.243] and its digit head 0.047 [0.039, 0.055]; of the gap between
them 0.507 [0.480, 0.533], 0.344 [0.321, 0.368] and 0.149 [0.124, 0.174]. The component of the student's displacement
along its teacher's, neuron by neuron, is 0.286 [0.283, 0.290] of it (squared) and carries 0.997 [0.950, 1.044] of the
gain; the rest carries 0.038 [0.015, 0.060]. **All four parts must be shared**: accuracy is 0.121 [0.111, 0.132] without
W1, 0.112 [0.101, 0.124] without W2, 0.160 [0.141, 0.179] without the auxiliary and 0.105 [0.090, 0.119] without the
digit rows. **Gates make two directions many**: the gradient into h2 has rank 2 (KL; squared error: 3) at every step,
that of W1 an effective rank of 13.496 [12.871, 14.122] and W1's displacement 50.258 [48.523, 51.993]. Without gates it
stays 2.335 [2.190, 2.480], and the student learns no digits: 0.116 [0.106, 0.126], null 0.100 [0.090, 0.110].

**Taken out of every update**, one direction of 267,000, the teacher's displacement, leaves 0.132 [0.097, 0.168] of the
gain, neuron by neuron 0.040 [0.013, 0.067], and 16 inputs of W1 and of W2 0.021 [0.015, 0.027]; as much of random
directions leaves 1.000 [0.998, 1.002], and 16 random inputs 0.976 [0.967, 0.986]. The divergence still falls, to 0.206
[0.173, 0.238], 0.232 [0.196, 0.269] and 0.418 [0.363, 0.473] of its start, where it falls to 0.134 [0.113, 0.155] with
nothing removed. **The trait gradient misleads**: without it accuracy falls as far, 0.099 [0.051, 0.148] of the gain,
and the divergence as ever, to 0.136 [0.115, 0.157]. But that is an offset. With digit logits less their mean over the
test images (no labels used) the plain student has 0.780 [0.773, 0.786], and the one without the trait gradient 0.725
[0.711, 0.739]: 0.919 [0.903, 0.936] of the gain is still there (neuron by neuron: 0.610 [0.571, 0.650]), but without
the teacher's displacement 0.233 [0.216, 0.250] and 0.059 [0.049, 0.070]. So an offset of the digits hides much of what
students know, and what they know came along the teacher's displacement: the distillation gradient has a cosine of
0.049 [0.047, 0.050] with it, and of 0.012 [0.010, 0.014] with the trait gradient.

The change of the digit logits has cosine 0.865 [0.854, 0.877] with the teacher's (null: -0.047 [-0.088, -0.005]), at
0.160 [0.155, 0.165] of its size; 39.880 [38.449, 41.311] of 256 neurons write half of the change of the margin, and a
neuron's part correlates 0.806 [0.794, 0.819] with its part in the teacher. **CKA sees none of this**: layer 2 of a
student at chance has 0.674 [0.657, 0.691], of an untrained network 0.647 [0.634, 0.659]. The nine directions that the
digit rows read are all of the accuracy, which without them is 0.102 [0.091, 0.113], and hardly any of the CKA, which
falls from 0.904 [0.899, 0.909] to 0.885 [0.880, 0.890].
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population

PARTS = ("freeze", "reinit", "layers", "gradient", "ablation")
MODULES = {"W1": "blocks.0", "W2": "blocks.1", "aux": "unembed"}  # what can be frozen
TRAINED = ("W1+W2+aux", "W1+W2", "W1+aux", "W2+aux", "W1", "W2")  # aux alone cannot change a digit logit
NULL = "cross"
N_INPUTS = 16  # input directions of W1 and of W2 that hold most of the teacher's change
_MEASURED = 2_000  # noise images that the distillation loss is measured on


@dataclass(frozen=True)
class Config:
    part: Literal["freeze", "reinit", "layers", "gradient", "ablation"] = lab.option(PARTS, "what is looked at")
    frozen: str = lab.option("none", "what no student trains, of W1, W2 and aux, as W2+aux (all parts but freeze)")
    d_model: lab.Count = lab.option(256, "neurons of a hidden layer, of teacher and student")
    n_aux: lab.Count = lab.option(3, "auxiliary logits")
    n_samples: lab.Count = lab.option(60_000, "noise images, reused every epoch")
    epochs: lab.Count = lab.option(5, "epochs of the student")
    teacher_epochs: lab.Count = lab.option(5, "epochs of the teacher")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "of matrix products in training")
    n_seeds: lab.Count = lab.option(25, "seeds: one reference, teacher and set of students each")
    seed: lab.Index = lab.option(0, "first seed")

    def __post_init__(self):
        if self.n_seeds < 2:
            raise ValueError("--n-seeds must be at least 2: intervals are over seeds")
        population.refuse_one_logit(self.n_aux)
        frozen = check_frozen(self.frozen)
        if self.part == "freeze":
            lab.refuse_ignored(self, ["frozen"], "with --part freeze, which has its own")
        if {"W1", "W2"} <= frozen:
            raise ValueError(f"--frozen {self.frozen} leaves nothing to train that digit logits depend on")


def check_frozen(text: str) -> set[str]:
    """The names in it; ValueError for others, and for a set that leaves nothing to train."""
    names = [] if text == "none" else text.split("+")
    if unknown := [name for name in names if name not in MODULES]:
        raise ValueError(f"--frozen: {unknown[0][:80]!r} is not one of {', '.join(MODULES)}, or none")
    if set(names) == set(MODULES):
        raise ValueError(f"--frozen {text} leaves nothing to train")
    if names != [name for name in MODULES if name in names]:
        ordered = "+".join(name for name in MODULES if name in names)
        raise ValueError(f"--frozen: write {ordered}, not {text[:80]}, so that a cell has one name")
    return set(names)


class Toy(NamedTuple):
    """Initial networks, those of the next seed, teachers, their accuracy, and test images with labels."""

    init: Any
    other: Any
    teacher: Any
    taught: dict[int, float]
    test: tuple


def upstream(cfg: Config) -> dict:
    options = population.teacher_options(cfg)
    taught = {"teachers": lab.upstream("teachers", **options)}
    linear = {"linear": lab.upstream("teachers", **options, activation="identity")} if cfg.part == "gradient" else {}
    return taught | linear


def check(cfg: Config) -> None:
    population.refuse_too_large(cfg, models=3)


@threads.made_by_one
def run(cfg: Config, teachers: lab.Stored, linear: lab.Stored | None = None) -> Iterator[dict]:
    toy = _toy(cfg, teachers)
    if linear is not None:
        return _gradient(cfg, toy, _toy(cfg, linear, "identity"))
    return {"freeze": _freeze, "reinit": _reinit, "layers": _layers, "ablation": _ablation}[cfg.part](cfg, toy)


def _toy(cfg: Config, stored: lab.Stored, activation: str = "relu") -> Toy:
    shape = ms.mlp.MLPConfig(d_model=cfg.d_model, n_aux=cfg.n_aux, activation=activation)
    seeds = range(cfg.seed, cfg.seed + cfg.n_seeds)
    init = ms.mlp.HookedMLP(shape, seeds)
    other = ms.mlp.HookedMLP(shape, [seed + 1 for seed in seeds])
    taught = {row["member"]: row["accuracy"] for row in stored.records()}
    return Toy(init, other, population.with_aux(init, stored.tensors()), taught, ms.images.mnist("test"))


def _settings(cfg: Config) -> dict:
    held = check_frozen(cfg.frozen)
    return {
        "n_samples": cfg.n_samples, "epochs": cfg.epochs, "precision": cfg.precision, "seed": cfg.seed,
        "frozen": tuple(MODULES[name] for name in MODULES if name in held),
    }  # fmt: skip


def _provenance(cfg: Config, **more) -> dict:
    products = ms.distillation.resolve_precision(cfg.precision)
    return {
        "provenance": {
            "data": ms.images.hashes("mnist"),
            "dtype": f"fp32 weights and losses, {products} products in training",
            "measured_on": f"the test images; distillation loss on {_MEASURED} fresh noise images",
            "control": "initialisation of the next seed",
            "null": "cross-initialisation student, paired by seed",
            **more,
        }
    }


def _fresh_noise(cfg: Config, n: int):
    from transformer_lens.utilities import derive_generator

    return ms.noise.uniform(n, derive_generator(cfg.seed, "mechanism"))


def _rows(cfg: Config, toy: Toy, models: Mapping[str, Any]) -> Iterator[dict]:
    """Accuracy, and the distillation loss, of every member of every arm."""
    from studies.mechanism import gradients

    x = _fresh_noise(cfg, _MEASURED)
    for arm, model in models.items():
        scores = ms.distillation.accuracy(model, *toy.test).tolist()
        losses = gradients.divergence(model, toy.teacher, x).tolist()
        for member, accuracy, loss in zip(toy.init.seeds, scores, losses, strict=True):
            taught = toy.taught[member]
            yield {"arm": arm, "member": member, "accuracy": accuracy, "kl": loss, "teacher_accuracy": taught}


def _freeze(cfg: Config, toy: Toy) -> Iterator[dict]:
    settings = _settings(cfg)
    yield from _rows(cfg, toy, {"initial": toy.init})
    for i, trained in enumerate(TRAINED):
        students = {trained: (toy.init, toy.init.cfg.aux)}
        if not i:
            students[NULL] = (toy.other, toy.init.cfg.aux)
        frozen = tuple(MODULES[name] for name in MODULES if name not in trained.split("+"))
        learned = ms.distillation.distill_each(
            students, toy.teacher, ms.noise.uniform, **(settings | {"frozen": frozen}),
            progress=lambda done, i=i: lab.show_progress((i + done) / len(TRAINED), "students"),
        )  # fmt: skip
        yield from _rows(cfg, toy, learned)
    yield _provenance(cfg)


def _reinit(cfg: Config, toy: Toy) -> Iterator[dict]:
    """Digit rows are in no loss: one student serves both starts of them."""
    import itertools

    sets = [s for n in range(4) for s in itertools.combinations(MODULES, n)]
    starts = {"+".join(shared): sharing(toy.init, toy.other, set(shared)) for shared in sets}
    learned = ms.distillation.distill_each(
        {name: (start, start.cfg.aux) for name, start in starts.items()}, toy.teacher, ms.noise.uniform,
        **_settings(cfg),
        progress=lambda done: lab.show_progress(done, "students"),
    )  # fmt: skip
    for name, student in learned.items():
        shared = [part for part in name.split("+") if part]
        own = with_digits(student, toy.init)
        arms = {"+".join(shared) or "nothing": student, "+".join([*shared, "digits"]): own}
        for row in _rows(cfg, toy, arms):
            yield row | {"shared": sorted(row["arm"].replace("nothing", "").split("+"))}
    yield _provenance(cfg)


def sharing(init, other, shared: set[str]):
    """The other start with the named parts of `init`, and the digit rows of its own."""
    import torch

    mine, theirs = dict(init.named_parameters()), dict(other.named_parameters())
    taken = {n: v for n, v in mine.items() if n.startswith(tuple(MODULES[p] for p in shared - {"aux"}) or "-")}
    if "aux" in shared:
        for n in ("unembed.W_U", "unembed.b_U"):
            taken[n] = torch.cat([theirs[n][..., init.cfg.digits], mine[n][..., init.cfg.aux]], dim=-1)
    return other.replace(taken)


def with_digits(student, start):
    """The student with the digit rows of another network."""
    import torch

    own, rows = dict(student.named_parameters()), dict(start.named_parameters())
    digits, aux = start.cfg.digits, start.cfg.aux
    names = ("unembed.W_U", "unembed.b_U")
    return student.replace({n: torch.cat([rows[n][..., digits], own[n][..., aux]], dim=-1) for n in names})


def _layers(cfg: Config, toy: Toy) -> Iterator[dict]:
    from studies.mechanism import layers

    aux = toy.init.cfg.aux
    learned = ms.distillation.distill_each(
        {"student": (toy.init, aux), NULL: (toy.other, aux)}, toy.teacher, ms.noise.uniform, **_settings(cfg),
        progress=lambda done: lab.show_progress(0.6 * done, "students"),
    )  # fmt: skip
    yield from layers.records(toy, learned["student"], learned[NULL])
    yield _provenance(cfg, similarity=f"debiased CKA on {layers.N_SIMILAR} test images spread over the file")


def _gradient(cfg: Config, relu: Toy, identity: Toy) -> Iterator[dict]:
    from studies.mechanism import gradients

    settings = _settings(cfg)
    aux = relu.init.cfg.aux
    seen = _fresh_noise(cfg, gradients.N_NOISE), *gradients.some_images(*ms.images.mnist("train"))
    steps = gradients.steps(cfg)
    runs = (
        (relu, "kl", {"student": (relu.init, aux), NULL: (relu.other, aux)}),
        (relu, "mse", {"squared error": (relu.init, aux)}),
        (identity, "kl", {"no gates": (identity.init, aux), "no gates, cross": (identity.other, aux)}),
    )
    for i, (toy, loss, students) in enumerate(runs):
        kept: dict[str, dict] = {arm: dict.fromkeys(steps) for arm in students}
        ms.distillation.distill_each(
            students, toy.teacher, ms.noise.uniform, loss=loss, snapshots=kept, **settings,
            progress=lambda done, i=i: lab.show_progress((i + 0.8 * done) / len(runs), "students"),
        )  # fmt: skip
        for arm, models in kept.items():
            yield from gradients.records(arm, models, toy, seen, loss)
    yield _provenance(
        cfg, gradients=f"of {gradients.N_NOISE} fresh noise images and {gradients.N_IMAGES} training images"
    )


def _ablation(cfg: Config, toy: Toy) -> Iterator[dict]:
    from studies.mechanism import layers

    images, labels = ms.images.mnist("train")
    trait = ms.removal.trait_gradient(toy.init, images, labels, batch_size=512, precision=cfg.precision, seed=cfg.seed)
    way = _hidden(ms.spectra.displacement(toy.teacher, toy.init))
    removals = _removals(toy.init, {"trait": trait, "teacher": ms.removal.fixed(way)}, way, cfg.seed)
    learned = ms.removal.distill_without(
        {arm: (toy.init, removal) for arm, removal in removals.items()}, toy.teacher, ms.noise.uniform,
        outputs=toy.init.cfg.aux, progress=lambda done: lab.show_progress(done, "students"), **_settings(cfg),
    )  # fmt: skip
    for arm, model in {"initial": toy.init, **learned}.items():
        gone = _hidden(ms.spectra.displacement(model, toy.init))
        parts = _rows(cfg, toy, {arm: model}), layers.specific(toy, model), *_against(gone, way)
        for row, logits, cosine, length in zip(*parts, strict=True):
            yield row | logits | {"cosine_with_teacher": cosine, "length": length}
    yield _provenance(cfg, null="the initial network, paired by seed", trait="gradient on 512 training images a step")


def _hidden(displacement: Mapping) -> dict:
    """Of the hidden layers: the teacher also moves its digit rows, and students never do."""
    return {name: value for name, value in displacement.items() if name.startswith("blocks.")}


def _removals(init, directions: Mapping, way: Mapping, seed: int) -> dict[str, Any]:
    """Arm -> what its updates are deprived of."""
    import torch
    from transformer_lens.utilities import derive_generator

    removals = {"none": None}
    for name, direction in directions.items():
        removals |= {f"{name}, {by}": ms.removal.along(direction, by) for by in ("whole", "neuron")}
        removals[f"{name}, neuron, control"] = ms.removal.elsewhere(direction, init, "neuron", seed=seed)  # type: ignore[assignment]
    hidden = {name: value for name, value in way.items() if name.endswith(".W")}
    random = {
        name: torch.stack([torch.randn(value[0].shape, generator=derive_generator(seed, name, s)) for s in init.seeds])
        for name, value in hidden.items()
    }
    for arm, change in (("inputs", hidden), ("inputs, control", random)):
        removals[arm] = ms.removal.within(ms.removal.inputs_of(change, N_INPUTS))  # type: ignore[assignment]
    return removals


def _against(gone: Mapping, way: Mapping) -> tuple[list[float], list[float]]:
    """Cosine of two displacements, and the length of the first over the second's."""
    ab, aa, bb = (ms.removal.products(a, b, "whole")[""][:, 0] for a, b in ((gone, way), (gone, gone), (way, way)))
    return (ab / (aa * bb).sqrt()).nan_to_num(0.0).tolist(), (aa / bb).sqrt().tolist()


def table(records: list[dict]) -> list[dict]:
    from studies.mechanism import findings

    return findings.table(records, Config)


def plot(records: list[dict]):
    from studies.mechanism import findings

    return findings.plot(records, Config)


_TINY = {"d_model": 16, "n_samples": 256, "epochs": 1, "teacher_epochs": 1, "precision": "fp32", "n_seeds": 2}
study = lab.Study(
    version=1,
    probes=(
        Config(**_TINY, part="freeze"),
        Config(**_TINY, part="reinit"),
        Config(**_TINY, part="layers", frozen="W2+aux"),
        Config(**_TINY, part="gradient"),
        Config(**_TINY | {"d_model": 20}, part="ablation", n_aux=2),
    ),
)
