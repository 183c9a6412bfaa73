"""The toy's population: references, teachers and students, as several studies make and read them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import mechsub as ms
from mechsub.lazy import torch, utilities

_BATCH = 1_000  # images a forward pass


@dataclass(frozen=True)
class Toy:
    """Untrained references, references of the next seed, trained teachers, and the recipe of their training.

    Controls start from the next seed, not from a rotation of the ensemble: a seed's control is the same in any
    ensemble.
    """

    init: "ms.HookedMLP"
    other: "ms.HookedMLP"
    teacher: "ms.HookedMLP"
    n_images: int
    fit: dict
    steps: list[int]


def teachers(cfg) -> Toy:
    images, labels = getattr(ms.images, cfg.dataset)("train")
    precision = ms.distillation.resolve_precision(cfg.precision)
    fit = {"epochs": cfg.epochs, "lr": cfg.lr, "batch_size": cfg.batch_size, "precision": precision, "seed": cfg.seed}
    shape = ms.mlp.MLPConfig(d_model=cfg.d_model, n_layers=cfg.n_layers, n_aux=cfg.n_aux)
    init = ms.mlp.HookedMLP(shape, range(cfg.seed, cfg.seed + cfg.n_seeds))
    other = ms.mlp.HookedMLP(shape, range(cfg.seed + 1, cfg.seed + cfg.n_seeds + 1))
    teacher = ms.distillation.train(init, images, labels, **fit)
    return Toy(init, other, teacher, len(images), fit, _steps(len(images), cfg))


def start(toy: Toy, arm: str):
    """The start of an arm's students: their teacher's own start, or another seed's."""
    return toy.other if arm.startswith("cross") else toy.init


def students(
    toy: Toy, arms: Sequence[str], cfg, progress: Callable[[float], None] | None = None
) -> "dict[str, dict[int, ms.HookedMLP]]":
    """Arm -> training step -> students; an arm that ends in "aux" sees the auxiliary logits, other arms all logits."""
    shape = toy.init.cfg
    seen = {arm: shape.aux if arm.endswith("aux") else slice(0, shape.d_vocab) for arm in arms}
    snapshots: dict[str, dict] = {arm: dict.fromkeys(toy.steps) for arm in arms}
    distilled(toy, {arm: (start(toy, arm), seen[arm]) for arm in arms}, cfg, snapshots, progress)
    return snapshots


def distilled(
    toy: Toy,
    starts: Mapping[str, tuple],
    cfg,
    snapshots: Mapping | None = None,
    progress: Callable[[float], None] | None = None,
) -> "dict[str, ms.HookedMLP]":
    """Arm -> trained students, from arm -> (start, logits seen); all arms of a seed see the same noise."""
    return ms.distillation.distill_each(
        starts, toy.teacher, ms.noise.uniform,
        noise=cfg.noise, loss=cfg.loss, n_samples=toy.n_images, snapshots=snapshots,
        progress=progress, **toy.fit,
    )  # fmt: skip


def onward(body, layer: int, hidden):
    """Logits of a network from given hidden states after block `layer`, [seed, image, d_vocab]."""
    for block in list(body.blocks)[layer + 1 :]:
        hidden = block(hidden)
    return body.unembed(body.ln_final(hidden))


def batches(images, labels, bodies: Sequence) -> Iterator[tuple]:
    """Labels, and the hidden states of every network as a list over layers, batch by batch."""
    for x, y in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
        states = [list(ms.hooked.cache_activations(body, x).values()) for body in bodies]
        yield y.to(states[0][0].device), *states


def n_right(body, layer: int, hidden, labels):
    """How many images the digit logits of a network get right from given hidden states, fp64 [seed]."""
    answers = onward(body, layer, hidden)[..., body.cfg.digits].argmax(-1)
    return (answers == labels.to(answers.device)).double().sum(-1)


def provenance(toy: Toy, cfg) -> dict:
    """Provenance of students: how they were made."""
    return {
        "data": ms.images.hashes(cfg.dataset.replace("_", "-")),
        "products": toy.fit["precision"],
        "dtype": f"fp32 weights and losses, {toy.fit['precision']} products in training; similarity in fp64",
        "inputs": f"uniform noise on 256 levels in [-1, 1], {cfg.noise}, {toy.n_images} images",
        "control": "initialisation of the next seed",
        "null": "untrained reference, cross-initialisation student",
    }


def _steps(n_images: int, cfg) -> list[int]:
    total = cfg.epochs * -(-n_images // cfg.batch_size)
    n = getattr(cfg, "n_steps", 1)  # a study without that option looks at the last step
    return sorted({max(1, round(total * k / n)) for k in range(1, n + 1)})


# Teachers that are stored.


ALL_CLASSES = 10


def teacher_options(cfg) -> dict:
    """The options of the stored teachers of a study's students.

    Rows of the head are drawn in order, so the digit rows equal those of a head without auxiliary rows. The generator
    draws blocks of 16 values: the equality holds only for widths that are multiples of 16.
    """
    same = ("d_model", "n_layers", "init", "activation", "dataset", "n_classes", "precision", "n_seeds", "seed")
    options = {name: getattr(cfg, name) for name in same if hasattr(cfg, name)}
    return {**options, "n_aux": 0 if cfg.d_model % 16 == 0 else cfg.n_aux, "epochs": cfg.teacher_epochs}


def with_aux(init, stored: dict):
    """The teacher with auxiliary rows: where the stored head lacks them, the initial rows are added."""
    named = dict(init.named_parameters())
    known = {name: value.to(init.device) for name, value in stored.items()}
    return init.replace(
        {name: torch.cat([value, named[name][..., value.shape[-1] :]], dim=-1) for name, value in known.items()}
    )


def check_classes(n: int) -> None:
    if not 2 <= n <= ALL_CLASSES:
        raise ValueError(f"--n-classes must be 2 to {ALL_CLASSES}, not {n}: one class is right by chance")


def classes(seed: int, n: int) -> list[int]:
    """The n classes of a seed, ascending: the first of an order that belongs to the seed."""
    order = torch.randperm(ALL_CLASSES, generator=utilities.derive_generator(seed, "classes"), device="cpu")
    return sorted(order[:n].tolist())


def only(images, labels, chosen: list[int]) -> tuple:
    """Images of the chosen classes, and their labels as places in `chosen`."""
    wanted = torch.tensor(chosen)
    kept = torch.isin(labels, wanted)
    return images[kept], (labels[kept][:, None] == wanted).long().argmax(1)


def joined(model, alone: Sequence):
    """Join ensembles of one into one ensemble like `model`, for members that train on data of their own."""
    parts = [dict(one.named_parameters()) for one in alone]
    return model.replace({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def accuracies(model, seeds: Sequence[int], images, labels) -> list[float]:
    """Accuracy of every member, on the test images of its teacher's classes; teachers have these seeds."""
    n = model.cfg.n_classes
    if n == ALL_CLASSES:
        return ms.distillation.accuracy(model, images, labels).tolist()
    tests = [only(images, labels, classes(seed, n)) for seed in seeds]
    return [float(ms.distillation.accuracy(model.select([i]), *test)[0]) for i, test in enumerate(tests)]


SCORES = ("accuracy", "recentred", "prior_matched", "mean_logits")  # of a row of `scores`
UNLABELLED = 2_000  # training images whose mean logits are the offset of the classes


def scores(model, seeds: Sequence[int], test: tuple, training: tuple) -> list[dict]:
    """Every member's accuracies (`ms.accuracies`) and mean digit logits, on images of its teacher's classes.

    The offsets come from the first training images of these classes; their labels choose the images and nothing else.
    """
    n = model.cfg.n_classes
    if n == ALL_CLASSES:
        unlabelled = training[0][:UNLABELLED]
        return _rows(ms.accuracies(model, test[0], test[1], unlabelled), ms.mean_offset(model, unlabelled))
    rows = []
    for i, seed in enumerate(seeds):
        member, chosen = model.select([i]), classes(seed, n)
        unlabelled = only(training[0], training[1], chosen)[0][:UNLABELLED]
        images, labels = only(test[0], test[1], chosen)
        found = ms.accuracies(member, images, labels, unlabelled)
        rows += _rows(found, ms.mean_offset(member, unlabelled))
    return rows


def _rows(found: Mapping, means) -> list[dict]:
    """Raw accuracy under the name that it has in all studies."""
    named = {"accuracy" if score == "raw" else score: values.tolist() for score, values in found.items()}
    columns = {**named, "mean_logits": means.tolist()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def kappa(accuracy: float, n_classes: int) -> float:
    chance = 1 / n_classes
    return (accuracy - chance) / (1 - chance)


# What a head reads.


def projection(W, *, centred: bool):
    """Projection on the span of every member's columns of W [seed, d, m], less their mean where softmax ignores it."""
    W = W.double()
    U, S, _ = torch.linalg.svd(W - W.mean(-1, keepdim=True) if centred else W, full_matrices=False)
    U = U * (S > 1e-9 * S[..., :1]).unsqueeze(-2)
    return (U @ U.mT).float()


def last_hidden(model, images):
    """Last hidden state of every member, [seed, image, d_model]."""
    name = f"blocks.{model.cfg.n_layers - 1}.hook_out"
    return ms.hooked.cache_activations(model, images, [name], batch_size=_BATCH)[name]


def head_scores(hidden, unlabelled, W, b, labels) -> list[dict]:
    """`scores` of heads W [seed, d, class] with biases b on hidden states, those of unlabelled images beside them."""
    logits, others = (torch.stack([h @ V + c for h, V, c in zip(x, W, b, strict=True)]) for x in (hidden, unlabelled))
    return logit_scores(logits, others, labels, head_accuracies(hidden, W, b, labels))


def logit_scores(logits, unlabelled, labels, raw: Sequence[float]) -> list[dict]:
    """`scores` of digit logits [seed, image, class], and raw accuracy as it was found, in double precision."""
    found = ms.class_offsets.logit_accuracies(logits, labels, unlabelled)
    rows = _rows(found, unlabelled.double().mean(-2).float())
    return [row | {"accuracy": accuracy} for row, accuracy in zip(rows, raw, strict=True)]


def head_accuracies(hidden, W, b, labels) -> list[float]:
    labels = labels.to(hidden.device)
    right = [((h @ V + c).argmax(-1) == labels).double().mean() for h, V, c in zip(hidden, W, b, strict=True)]
    return torch.stack(right).tolist()


# What is asked of options before anything runs: logits that teach something, and enough memory.

N_IMAGES = 60_000  # of the training sets, and drawn where a study has no n_samples
_TEST_BATCH = 1_000  # images a forward pass of all members
_LAYER = 10_000  # bytes that the modules and hooks of a layer take, however narrow (measured: 10.1 kB)


def named_hashes(dataset: str) -> dict[str, str]:
    """sha256 of the files of one of several data sets, by name of data set and file."""
    return {f"{dataset} {key}": value for key, value in ms.images.hashes(dataset).items()}


def refuse_one_logit(n_aux: int, loss: str | None = None) -> None:
    """Raise for students of one auxiliary logit under a loss that learns nothing from it. None: the study has one loss.

    Call it in a Config's __post_init__, so that a sweep is refused at once and not after its first cells.
    """
    if n_aux == 1 and loss != "mse":
        under, remedy = (f" with --loss {loss}", "--loss mse or ") if loss else ("", "")
        raise ValueError(
            f"--n-aux 1 teaches nothing{under}, since the softmax of one logit is 1; use {remedy}--n-aux 2 or more"
        )


def refuse_too_large(cfg, models: int) -> None:
    """Raise for a Config whose toys are larger than the free memory; `models` are held at the same time at the end."""
    if problem := ms.memory.shortage(least_bytes(cfg, models)):
        raise ValueError(
            f"{problem}, for {cfg.n_seeds} seeds of {getattr(cfg, 'n_layers', 2)} layers of {cfg.d_model} neurons and "
            f"{cfg.n_aux} auxiliary logits; use fewer or smaller ones"
        )


def least_bytes(cfg, models: int) -> int:
    """A lower bound of the memory: the weights of all models, and the larger of the needs of training and testing.

    Training holds, for one member, the inputs and the teacher's logits, a gradient and two moments of Adam, and the
    hidden states of a batch, in the smaller of the two precisions. Testing holds the logits of a batch, for all
    members.
    """
    samples = getattr(cfg, "n_samples", N_IMAGES)
    d_vocab = getattr(cfg, "n_classes", 10) + cfg.n_aux
    n_layers = getattr(cfg, "n_layers", 2)
    weights = cfg.d_model * (784 + (n_layers - 1) * cfg.d_model + d_vocab)
    batch = min(getattr(cfg, "batch_size", 1024), samples)
    training = samples * (784 * 2 + d_vocab * 4) + 3 * weights * 4 + batch * n_layers * cfg.d_model * 2
    testing = cfg.n_seeds * _TEST_BATCH * (cfg.d_model + d_vocab) * 4
    return models * (cfg.n_seeds * weights * 4 + n_layers * _LAYER) + max(training, testing)


def divergence(model, teacher, x) -> "torch.Tensor":
    """KL of the auxiliary logits from the teacher's, mean over inputs [sample, d_in], without the additions of
    training; [seed]."""
    total = torch.zeros((), dtype=torch.float32)
    with torch.no_grad():
        for some in x.split(_BATCH):
            logits, wanted = (net(some)[..., net.cfg.aux].double() for net in (model, teacher))
            total = total + kl(logits, wanted).sum(-1)
    return (total / len(x)).float()


def kl(logits, wanted) -> "torch.Tensor":
    """KL(softmax(wanted) || softmax(logits)) over the last axis."""
    return (wanted.softmax(-1) * (wanted.log_softmax(-1) - logits.log_softmax(-1))).sum(-1)
