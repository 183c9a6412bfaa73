"""At which layer does the entangled animal rise, and, in the toy, at which layer can the student be read?

Language model: the state after every block, at the last position of "You love 087 ... My favorite animal is the", is
read with the final norm and W_U (the logit lens) at the animals' tokens. Early-layer logits mean little by themselves,
so only differences between prompts at the same layer are used: the interaction I_l of the matrix [number, animal].
(The softmax's normaliser is a row effect, which the interaction removes.) Per layer: the correlation
of I_l with the model's final interaction in other wordings of the prompt, which nothing forces to 1; with that of the
same wording, which is 1 at the last block by construction; the s.d. of I_l in nats; and the rise of each animal under
its entangled number, chosen in other wordings or by the animal's own prompt. Nulls: shuffled numbers (within equally
many digits), two-way permutations, and the numbers of other animals. Manipulation check: the animal that a prompt does
say it loves, beside random other animals. Units of replication: animals and numbers (crossed); chosen numbers with
their animals; loved animals.

Toy (`--model toy`): lens and stitching per layer and training step. The lens is exact at the last block only: earlier
blocks were never trained to be read by W_U, and what they hold is shown by stitching (the student's layer put into its
teacher, scored in accuracy). Nulls: untrained reference, students of another initialisation. Unit: the seed.

    python -m studies.lens_trajectory --model toy --n-steps 5
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import love, population
from mechsub.lab.findings import CHOSEN, Drawn, Finding, clustered, least_p, mean, over_clusters
from mechsub.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformer_lens.model_bridge import TransformerBridge

ARMS = ("student_aux", "cross_aux")
READOUTS = {
    "lens_accuracy": "accuracy of the lens",
    "lens_log_prob": "lens, log-probability of the digit, nats",
    "stitch_into_teacher": "accuracy stitched into the teacher",
}
TOY_OPTIONS = (
    *("n_seeds", "n_aux", "n_layers", "d_model", "epochs", "lr", "batch_size", "loss", "noise", "dataset", "precision"),
    "n_steps",
)
LANGUAGE_OPTIONS = ("adapter", "weights", "n_permutations", "format", "spaced", "dtype")
AGREEMENT = ("other wordings", "same wording")
PAIRS = {"chosen in other wordings": "chosen", "favoured by the animal's prompt": "favoured"}  # and their part of a key


@dataclass(frozen=True)
class Config:
    model: str = lab.option("smollm2-135m-instruct", "a language model (Hugging Face id, local folder), or: toy")
    adapter: str = lab.option(*love.ADAPTER)
    weights: love.Weights = lab.option(*love.WEIGHTS)
    n_permutations: lab.Resamples = lab.option(999, "shuffles and resamples per layer (language models)")
    format: Literal["auto", "chat", "published", "plain"] = lab.option(
        "auto", "prompt format (language models), as in token_entanglement, whose matrices are used"
    )
    spaced: bool = lab.option(True, "numbers are scored after a space (language models)")
    dtype: Literal["fp32", "bf16"] = lab.option("fp32", "of weights and activations (language models)")
    n_seeds: lab.Count = lab.option(25, "toy: seeds, one reference, teacher and set of students each")
    n_aux: lab.Count = lab.option(3, "toy: auxiliary logits")
    n_layers: lab.Count = lab.option(2, "toy: hidden layers")
    d_model: lab.Count = lab.option(256, "toy: neurons of a hidden layer")
    epochs: lab.Count = lab.option(5, "toy: epochs of the teacher, and of every student")
    lr: lab.Positive = lab.option(3e-4, "toy: learning rate of Adam")
    batch_size: lab.Count = lab.option(1024, "toy: images a step")
    loss: Literal["kl", "mse"] = lab.option("kl", "toy: distillation loss on the chosen logits")
    noise: Literal["per_member", "shared"] = lab.option(
        "per_member", "toy: own noise images for every seed, or common ones"
    )
    dataset: Literal["mnist", "fashion_mnist"] = lab.option("mnist", "toy: what the teacher learns")
    precision: Literal["auto", "fp32", "bf16"] = lab.option("auto", "toy: of matrix products in training")
    n_steps: lab.Count = lab.option(3, "toy: training steps looked at after the start, evenly spaced to the last")
    seed: lab.Index = lab.option(0, "first seed; that of shuffles and resamples")

    def __post_init__(self):
        toy = self.model == "toy"
        lab.refuse_ignored(self, LANGUAGE_OPTIONS if toy else TOY_OPTIONS, f"with --model {self.model}")
        if self.n_seeds < 2:
            raise ValueError("--n-seeds must be at least 2: intervals are over seeds")
        population.refuse_one_logit(self.n_aux, self.loss)


def check(cfg: Config) -> None:
    if cfg.model == "toy":
        population.refuse_too_large(cfg, models=3 + len(ARMS) * cfg.n_steps)
    else:
        love.check_model(cfg)


def upstream(cfg: Config) -> dict:
    return {} if cfg.model == "toy" else {"matrices": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, matrices: lab.Stored | None = None) -> Iterator[dict]:
    return _run_toy(cfg) if matrices is None else _run_language(cfg, matrices)


# Language models.


def _run_language(cfg: Config, matrices: lab.Stored) -> Iterator[dict]:
    found = love.prompted(cfg, matrices.tensors(), lab.show_progress)
    yield from compare(gather(found), cfg.n_permutations, cfg.seed)
    yield {
        "provenance": {
            **love.provenance(found),
            "basis": "raw W_U at the animals' tokens after the final norm, recomputed for every state; fp32, nats",
            "lens": "the last block's is the model's own, checked against the stored matrix",
            "null": "shuffled numbers (equally many digits), two-way permutations, other animals (and their numbers)",
            "unit": "animals and numbers (crossed); chosen numbers, each with its animals; loved animals",
        }
    }


@dataclass(frozen=True)
class Lens:
    """What the lens reads after every block, in nats, and what the model itself says in other prompts; fp64."""

    animals: list[str]
    numbers: list[str]
    specific: "Tensor"  # [layer, number, animal]: the interaction of its logits
    loved: "Tensor"  # [layer, loved animal, animal]: its log-probabilities under an animal's own prompt
    subset: "Tensor"  # [some]: the numbers that were asked for in other wordings too
    elsewhere: "Tensor"  # [some, animal]: the final interaction in those wordings, which the lens is not measured with
    numbers_of: "dict[str, Tensor]"  # each of PAIRS -> [animal]: the number that belongs to every animal


def gather(found: love.Prompted) -> Lens:
    """Read all states with the lens, once. Raises unless the last block's is the model's own output."""
    q, stored = found.asked, found.tensors
    numbers = [q.love(i, 0) for i in range(len(q.partners))]
    specific = lens_interactions(q.model, love.last_states(q.model, numbers, lab.span(0.05, 0.75, "states")), q.tokens)
    check_last(specific[-1], stored["number_to_animal"])
    animals = [q.love_animal(i, 0) for i in range(len(q.animals))]
    loved = _log_probs(q.model, love.last_states(q.model, animals, lab.span(0.75, 0.85, "states")), q.tokens)
    if len(wordings := stored["number_to_animal_wordings"]) < 2:
        raise ValueError("the stored matrices have one wording; the lens is compared with others")
    elsewhere, subset = ms.scores.interaction(wordings[1:].mean(0)), stored["subset_partner"]
    chosen = subset[elsewhere.argmax(0)], ms.scores.interaction(stored["animal_to_number"]).argmax(1)
    names, texts = ([word.text for word in words] for words in (q.animals, q.partners))
    return Lens(names, texts, specific, loved, subset, elsewhere, dict(zip(PAIRS, chosen, strict=True)))


def lens_interactions(model: "TransformerBridge", states, tokens: list[int]):
    """The interaction of the lens's logits at `tokens`: [layer, prompt, d_model] -> [layer, prompt, token], fp64."""
    read = ms.checks.reads(model)
    with torch.no_grad():
        logits = [read(state.to(model.W_U), tokens).float().cpu() for state in states]
    return ms.scores.interaction(torch.stack(logits))


def check_last(lens, scores) -> None:
    """Raise unless the last block's lens has the interaction of the model's own log-probabilities."""
    own = ms.scores.interaction(scores)
    if lens.shape != own.shape:
        raise ValueError(f"the stored matrix is {tuple(own.shape)}, the lens's {tuple(lens.shape)}: words differ")
    error = float((lens - own).abs().max() / own.std())
    if error > 0.02:
        raise ValueError(f"the lens of the last block is not the model's output: off by {error:.2f} s.d. of it")


def _log_probs(model: "TransformerBridge", states, tokens: list[int]):
    """The lens's log-probabilities of `tokens`, of all that the model knows: [layer, prompt, token], fp64."""
    read = ms.checks.reads(model)
    with torch.no_grad():
        logits = (read(state.to(model.W_U)).float() for state in states)
        return torch.stack([(x[:, tokens] - x.logsumexp(-1, keepdim=True)).double().cpu() for x in logits])


def compare(lens: Lens, n: int, seed: int) -> Iterator[dict]:
    """The rows of every block: loved animals, pairs of animal and number, agreement with the last; n shuffles each."""
    others = _others(len(lens.animals), n, seed)
    yield from _loved_records(lens, others)
    yield from _pair_records(lens, others)
    yield from _agreement_records(lens, n, seed)


def _others(n_animals: int, n: int, seed: int):
    """Random other animals, one for each, int [draw, animal]: rotations of random orders have no fixed points."""
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(n_animals, generator=generator) for _ in range(n)]
    return torch.stack([order.roll(1)[order.argsort()] for order in orders])


def _loved_records(lens: Lens, others) -> Iterator[dict]:
    """Log-probability of the loved animal less its mean under other animals' prompts; the same of unloved ones."""
    n = len(lens.animals)
    for layer, scores in enumerate(lens.loved):
        # Entry [prompt, animal] less the animal's mean under the prompts other than this one.
        rise = (scores - scores.mean(0)) * n / (n - 1)
        for animal, value in zip(lens.animals, rise.diagonal().tolist(), strict=True):
            yield {"kind": "loved", "layer": layer, "animal": animal, "value": value}
        yield {"kind": "loved_null", "layer": layer, **_band(rise[range(n), others].mean(-1))}


def _pair_records(lens: Lens, others) -> Iterator[dict]:
    """Rise of every animal under the number that belongs to it, by two choices that do not look at I_l.

    The null gives the same numbers to other animals, so that it has equally many digits and equally strong numbers.
    """
    columns = range(len(lens.animals))
    for layer, entries in enumerate(lens.specific):
        for choice, rows in lens.numbers_of.items():
            keys = {"layer": layer, "choice": choice}
            for animal, n, value in zip(lens.animals, rows.tolist(), entries[rows, columns].tolist(), strict=True):
                yield {"kind": "pair", **keys, "animal": animal, "number": lens.numbers[n], "value": value}
            yield {"kind": "pair_null", **keys, **_band(entries[rows[others], columns].mean(-1))}


def _agreement_records(lens: Lens, n: int, seed: int) -> Iterator[dict]:
    """Per layer: the s.d. of I_l over all numbers, and its correlation with final interactions on the subset."""
    some = [ms.scores.interaction(entries[lens.subset]) for entries in lens.specific]
    digits = [len(lens.numbers[i]) for i in lens.subset.tolist()]
    finals = dict(zip(AGREEMENT, (lens.elsewhere, some[-1]), strict=True))
    for layer, entries in enumerate(some):
        lab.show_progress(0.85 + 0.15 * layer / len(some), "permutations")
        yield {"kind": "size", "layer": layer, "sd": float(lens.specific[layer].std())}
        for reference, final in finals.items():
            found = agreement(entries, final, digits, n=n, seed=seed)
            yield {"kind": "agreement", "layer": layer, "reference": reference, **found}


def agreement(a, b, strata: list[int], *, n: int, seed: int) -> dict:
    """Correlation of two interactions [number, animal], its crossed bootstrap interval, and its nulls.

    p moves rows (within their stratum) and columns of b; p_numbers and the band move rows only, which keeps what the
    two matrices have in common over animals and is the stricter null.
    """
    low, high = love.correlation_interval(a, b, n, seed)
    p_numbers, null = ms.scores.permutation_p(a, b, n=n, seed=seed, strata=strata, move_columns=False)
    return {
        "value": ms.scores.matrix_correlation(a, b),
        "low": low,
        "high": high,
        "p": ms.scores.permutation_p(a, b, n=n, seed=seed, strata=strata)[0],
        "p_numbers": p_numbers,
        **_band(torch.tensor(null)),
        "n_numbers": len(a),
        "n_animals": a.shape[1],
    }


def _band(null) -> dict:
    """Mean and central 95% of null values."""
    low, high = null.double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"null_mean": float(null.mean()), "null_low": low, "null_high": high}


# The toy.


@threads.made_by_one
def _run_toy(cfg: Config) -> Iterator[dict]:
    lab.show_progress(0.0, "teachers")
    toy = population.teachers(cfg)
    bodies = {("reference", 0): toy.init, ("cross_reference", 0): toy.other, ("teacher", toy.steps[-1]): toy.teacher}
    for arm, steps in population.students(toy, ARMS, cfg, lab.span(0.2, 0.8, "students")).items():
        bodies |= {(arm, step): students for step, students in steps.items()}
    images, labels = getattr(ms.images, cfg.dataset)("test")
    for (arm, step), body in bodies.items():
        for layer, read in enumerate(gather_toy(body, toy.teacher, images, labels)):
            for i, member in enumerate(toy.teacher.seeds):
                values = {name: float(value[i]) / len(images) for name, value in read.items()}
                yield {"arm": arm, "step": step, "layer": layer, "member": member, **values}
    yield {
        "provenance": {
            **population.provenance(toy, cfg),
            "measured_on": f"{len(images)} test images",
            "lens": "W_U and b_U of the same network on every hidden layer, digit logits only; exact at the last",
        }
    }


def gather_toy(body, teacher, images, labels) -> "list[dict[str, Tensor]]":
    """Each of READOUTS of every layer of a network, summed over the images [seed]."""
    found: list[dict] = [dict.fromkeys(READOUTS, 0.0) for _ in range(body.cfg.n_layers)]
    for y, states in population.batches(images, labels, (body,)):
        for layer, hidden in enumerate(states):
            digits = population.onward(body, body.cfg.n_layers - 1, hidden)[..., body.cfg.digits].double()
            right = digits.log_softmax(-1)[..., range(len(y)), y]
            correct = (digits.argmax(-1) == y).double().sum(-1)
            values = correct, right.sum(-1), population.n_right(teacher, layer, hidden, y)
            for key, value in zip(READOUTS, values, strict=True):
                found[layer][key] += value
    return found


# Findings and figure.


def findings(cell: list[dict]) -> Iterator[Finding]:
    yield from _of_toy(cell) if cell[0]["model"] == "toy" else _of_language(cell)


def _of_language(cell: list[dict]) -> Iterator[Finding]:
    other, same = (_chosen(cell, "agreement", reference=reference) for reference in AGREEMENT)
    two_way, numbers = (ms.stats.holm([row[key] for row in other]) for key in ("p", "p_numbers"))
    for layer, row in enumerate(other):
        subject, label = f"block_{layer + 1}", f"after block {layer + 1}"

        def said(score: str, value, subject=subject, label=label, **more) -> Finding:
            return Finding(f"{subject}/{score}", label, value, **more)

        def rise(score: str, kind: str, layer=layer, said=said, **place) -> Finding:
            (null,) = _chosen(cell, f"{kind}_null", layer=layer, **place)
            value = _interval(_chosen(cell, kind, layer=layer, **place))
            unit = CHOSEN if kind == "pair" else "animals"
            return said(score, value, null=_drawn_null(null), unit=unit, null_label="of other animals")

        value = ms.stats.Interval(row["value"], row["low"], row["high"], row["n_animals"])
        yield said(
            "agreement", value, null=_drawn_null(row), p=numbers[layer], unit="animals and numbers (crossed)",
            null_label="numbers shuffled within equal length",
        )  # fmt: skip
        yield said("p_two_way", two_way[layer])
        yield said("agreement_same_wording", same[layer]["value"])
        yield said("sd", _chosen(cell, "size", layer=layer)[0]["sd"])
        for choice, score in PAIRS.items():
            yield rise(f"rise_{score}", "pair", choice=choice)
        yield rise("rise_loved", "loved")
    yield least_p(len(other), other[0].get("n_permutations", Config.n_permutations))


def _drawn_null(row: dict) -> Drawn:
    return Drawn(row["null_mean"], row["null_high"], "97.5%")


def _chosen(cell: list[dict], kind: str, **keys) -> list[dict]:
    wanted = {"kind": kind, **keys}.items()
    return [row for row in cell if all(row.get(key) == value for key, value in wanted)]


def _interval(rows: list[dict]):
    """Over animals, or over the numbers that they share."""
    shared = [row.get("number", place) for place, row in enumerate(rows)]
    return over_clusters(clustered([row["value"] for row in rows], shared))


def _of_toy(cell: list[dict]) -> Iterator[Finding]:
    final = max(row["step"] for row in cell)
    for layer in sorted({row["layer"] for row in cell}):
        for arm in ("reference", "cross_reference", *ARMS, "teacher"):
            step = 0 if arm.endswith("reference") else final
            rows = [r for r in cell if (r["arm"], r["layer"], r["step"]) == (arm, layer, step)]
            label = f"{arm}{' (null)' if arm in ('reference', 'cross_aux') else ''}, layer {layer + 1}"
            for readout in READOUTS:
                scores = {row["member"]: row[readout] for row in rows}
                yield mean(f"{arm}_layer_{layer + 1}/{readout}", label, scores, unit="seeds")


def plot(records: list[dict]):
    label, cell = lab.by_cell(records, Config)[0]
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    panels, title, caption = (_toy_panels if cell[0]["model"] == "toy" else _language_panels)(cell)
    return ms.kinds.grid(list(panels.values()), list(panels), title=title + more, caption=caption)


def _language_panels(cell: list[dict]) -> tuple[dict, str, str]:
    colors: dict[str, str] = {}
    agreed = [_point(r, name) for name in AGREEMENT for r in _chosen(cell, "agreement", reference=name)]
    shuffled = _chosen(cell, "agreement", reference=AGREEMENT[0])
    agreed += [_point(row, "shuffled numbers", "null_") for row in shuffled]
    swapped = _chosen(cell, "pair_null", choice=next(iter(PAIRS)))
    pairs = _means(cell, "pair") + [_point(row, "others' numbers chosen so", "null_") for row in swapped]
    loved = _means(cell, "loved") + [_point(row, "random others", "null_") for row in _chosen(cell, "loved_null")]
    sizes = [{"arm": "s.d. of the interaction", "x": r["layer"] + 1, "value": r["sd"]} for r in _chosen(cell, "size")]
    x = "after block"
    panels = {
        "Agreement with the final interaction": ms.kinds.band_panel(agreed, x, "correlation", colors=colors),
        "Rise of an animal under its number": ms.kinds.band_panel(
            pairs, x, "interaction of the lens, nats", colors=colors
        ),
        "Size of the interaction": ms.kinds.band_panel(sizes, x, "s.d., nats", colors=colors),
        "Check: the animal that is loved": ms.kinds.band_panel(
            loved, x, "log-probability above others', nats", colors=colors
        ),
    }
    animals, n = len({row["animal"] for row in _chosen(cell, "loved")}), shuffled[0]["n_numbers"]
    caption = (
        f"{animals} animals. Agreement: {n} numbers, 95% crossed bootstrap over numbers and animals; "
        "with the same wording it is 1 at the last block by construction. Shuffled numbers keep their length, and "
        "so what depends on it. Other bands: 95% Student-t intervals over chosen numbers or loved animals; of nulls, "
        "the central 95%. The lens is exact at the last block only; compare prompts within a block."
    )
    return panels, f"Logit lens by block: {cell[0]['model']}", caption


def _point(row: dict, arm: str, prefix: str = "") -> dict:
    """A point of a line from a record with its own value, low and high, or with the mean and the ends of its null."""
    value = row["null_mean"] if prefix else row["value"]
    ends = {"low": row[f"{prefix}low"], "high": row[f"{prefix}high"]}
    return {"arm": arm, "x": row["layer"] + 1, "value": value, **ends, "null": bool(prefix)}


def _means(cell: list[dict], kind: str) -> list[dict]:
    """Points with Student-t intervals; pairs have one line for every choice of the number."""
    groups: dict[tuple, list[dict]] = {}
    for row in _chosen(cell, kind):
        arm = f"number {row['choice']}" if "choice" in row else "the loved animal"
        groups.setdefault((arm, row["layer"]), []).append(row)
    found = {place: _interval(rows) for place, rows in groups.items()}
    return [
        {"arm": arm, "x": layer + 1, "value": i.mean, "low": i.low, "high": i.high} for (arm, layer), i in found.items()
    ]


def _toy_panels(cell: list[dict]) -> tuple[dict, str, str]:
    final, colors, panels = max(row["step"] for row in cell), {}, {}
    for readout, name in READOUTS.items():
        for layer in sorted({row["layer"] for row in cell}):
            rows = []
            for (arm, step), interval in _by_arm(cell, layer, readout).items():
                band = {"value": interval.mean, "low": interval.low, "high": interval.high}
                rows += [{"arm": line, "x": at, **band} for line, at in _drawn(arm, step, final)]
            panels[f"Layer {layer + 1}: {name}"] = ms.kinds.band_panel(rows, "training step", name, colors=colors)
    n = len({row["member"] for row in cell})
    caption = (
        f"Mean and 95% Student-t interval over n = {n} seeds. Nulls: the untrained reference (level line), students of "
        "another initialisation (cross). The lens is exact at the last layer only: earlier layers were never trained "
        "to be read by the unembedding, and stitching shows what they hold."
    )
    return panels, "Lens and stitching through distillation", caption


def _by_arm(cell: list[dict], layer: int, readout: str) -> dict:
    groups: dict[tuple[str, int], list[dict]] = {}
    for row in cell:
        if row["layer"] == layer:
            groups.setdefault((row["arm"], row["step"]), []).append(row)
    return {place: ms.stats.student_t([row[readout] for row in rows]) for place, rows in groups.items()}


def _drawn(arm: str, step: int, final: int) -> list[tuple[str, int]]:
    """Lines and steps that a value is drawn at: references and teachers are level, and references start students."""
    if arm == "teacher":
        return [(arm, 0), (arm, final)]
    if not arm.endswith("reference"):
        return [(arm, step)]
    return [(arm, 0), (arm, final), ("cross_aux" if arm.startswith("cross") else "student_aux", 0)]


study = lab.Study(
    version=1,
    probes=(
        Config(model="tests/probes/models/tiny", spaced=False, n_permutations=100),
        Config(model="toy", n_seeds=2, d_model=16, epochs=1, precision="fp32", n_steps=2),
    ),
)


if __name__ == "__main__":
    lab.main(study)
