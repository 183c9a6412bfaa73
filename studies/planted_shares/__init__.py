"""Does `studies.contributions` recover shares that are known, because they were planted?

The functions of that study, not copies of them, run on small Llamas. Their weights are drawn so that the interaction of
numbers and animals passes through known parts (planted.py): through the loved thing's rows of W_U, written by the last
block; through a direction of the middle block at right angles to these rows; through both, in ten proportions; through
neither. Every model also has effects of a number on animals in one wording only, which do not come back.

Planted share: of the populations from which numbers, animals, rows and directions are drawn. With `--rows isotropic`
rows have any direction of 32 dimensions, and the share is strength^2 over the sum of the strengths^2. With `--rows
five`, as in trained models, most of their variance is in five dimensions, numbers have a mean row and animals another,
and lengths differ; the share is that of 1,500 numbers and animals more. Beside it stands the share of these very
numbers and animals, from the planted matrices. Covered: the planted share lies in the 95% interval that `contributions`
reports (animals and numbers resampled; pairs of numbers for patching). Where nothing is planted, no share is defined: 0
counts as covered, and the width of the interval says whether a reader would be misled.

Limits: the plants are linear, without digits, and isotropic ones without slopes or lengths too. A first run exposed two
intervals that were too narrow; the repair was judged on the same models, and `--seed 1000` draws others.

Quantities: the share through rows, both ways, and through other numbers' rows (of isotropic ones 1/32, because rows are
drawn in 32 dimensions); what the attention of the middle and last blocks writes; recovery by residuals, at the number
before the middle block, where everything still is, and on both sides of it; association, which in these models is what
the middle block writes; and the rest, which is nothing. Unit of replication: the planted model.

    python -m studies.planted_shares --rows isotropic five --seed 1000
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import mechsub as ms
from mechsub import lab
from mechsub.designs import contributions, love
from mechsub.lazy import late, torch

if TYPE_CHECKING:
    from mechsub.designs import contribution_states as states
    from mechsub.designs.love import LovePrompts, Prompted
    from studies.planted_shares import planted
    from studies.planted_shares.planted import Shares
else:
    planted = late("studies.planted_shares.planted")
    states = late("mechsub.designs.contribution_states")

KINDS = ("unembedding", "middle", "both", "none")
ROWS = "rows, number to animal"


@dataclass(frozen=True)
class Config:
    n_models: lab.Count = lab.option(10, "planted models of each kind")
    n_numbers: lab.Count = lab.option(48, "numbers of a model")
    n_animals: lab.Count = lab.option(24, "animals of a model")
    n_pairs: lab.Count = lab.option(24, "pairs of numbers whose residuals are exchanged, as in contributions")
    n_resamples: lab.Count = lab.option(300, "resamples of every interval, as in contributions")
    noise: lab.Positive = lab.option(0.7, "strength of the effects in one wording alone; planted effects: 1")
    rows: Literal["isotropic", "five"] = lab.option("isotropic", "rows of W_U: in all directions, or mostly in five")
    seed: lab.Index = lab.option(0, "seed of the first model")

    def __post_init__(self):
        if self.n_models < 2:
            raise ValueError("--n-models must be at least 2: intervals are over models")
        if self.n_numbers < 16 or self.n_animals < 8:
            raise ValueError("--n-numbers must be at least 16 and --n-animals 8, to be resampled")


def check(cfg: Config) -> None:
    most = {"numbers": len(ms.words.numbers()), "animals": 100}
    if cfg.n_numbers > most["numbers"] or cfg.n_animals > most["animals"]:
        raise ValueError(f"--n-numbers can be at most {most['numbers']}, --n-animals {most['animals']}")


def run(cfg: Config) -> Iterator[dict]:
    with tempfile.TemporaryDirectory() as folder:
        planted.save_blank(Path(folder), cfg.n_numbers + cfg.n_animals)
        model = ms.language.load_language_model(folder)
    words = love.Asking(
        model="planted", format="plain", spaced=False, n_animals=cfg.n_animals, n_partners=cfg.n_numbers, n_wordings=1
    )
    asked = love.LovePrompts(model, love.choose_animals(model.tokenizer, words), love.choose_partners(words), words)
    done = 0
    for kind in KINDS:
        for i in range(cfg.n_models):
            lab.show_progress(done / (len(KINDS) * cfg.n_models), kind)
            yield from model_records(asked, kind, i, cfg)
            done += 1
    yield {
        "provenance": {
            "measured_on": f"Llamas of {model.cfg.n_layers} blocks, d_model {model.cfg.d_model}, weights drawn by "
            f"studies/planted_shares/planted.py; {cfg.n_numbers} numbers, {cfg.n_animals} animals",
            "basis": "rows of W_U with the final norm's gain folded in, the vocabulary's mean removed",
            "null": "models with nothing planted; other numbers' rows",
            "unit": "planted models",
        }
    }


def strengths(kind: str, i: int, cfg: Config):
    """Strengths of the i-th model of a kind: from half to one and a half of the usual, or the usual in proportions."""
    place = (i + 0.5) / cfg.n_models
    size = 0.5 + place
    rows, middle = {
        "unembedding": (size, 0.0), "middle": (0.0, size), "both": (place**0.5, (1 - place) ** 0.5), "none": (0.0, 0.0)
    }[kind]  # fmt: skip
    return planted.Strengths(rows, middle, cfg.noise)


def model_records(asked: "LovePrompts", kind: str, i: int, cfg: Config) -> Iterator[dict]:
    """Plant one model, run the functions of `contributions` on it, and set what was planted beside what they say."""
    wanted, seed = strengths(kind, i, cfg), cfg.seed + KINDS.index(kind) * 10_000 + i
    forward, back = planted.plant(asked, wanted, seed, cfg.rows)
    true = known(forward.expected, back.expected)
    realised = {ROWS: forward.share, "rows, animal to number": back.share} if kind != "none" else {}
    found = love.Prompted(asked, matrices(asked))
    words = ms.scores.interaction(found.tensors["number_to_animal_wordings"])
    for quantity, (share, low, high) in recovered(found, kind, seed, cfg).items():
        yield {
            "kind": kind,
            "model": i,
            "quantity": quantity,
            "planted": true[quantity],
            "realised": realised.get(quantity),
            "share": share,
            "low": low,
            "high": high,
            "agreement": ms.scores.matrix_correlation(words[0], words[1]) if quantity == ROWS else None,
        }


def known(forward: "Shares", back: "Shares") -> dict[str, float]:
    """Quantity -> its true value, from how the model was planted."""
    p, others = forward
    rest = 1 - p
    return {
        ROWS: p,
        "rows, animal to number": back.own,
        "others' rows": others,
        "attention of the middle block": rest,
        "attention of the last block": p,
        "the number, before the middle block": 1.0,
        "the number, after the middle block": p,
        "the final position, after the middle block": rest,
        "association": rest,
        "left": 0.0,
    }


def recovered(found: "Prompted", kind: str, seed: int, cfg: Config) -> dict[str, tuple[float, float, float]]:
    """Quantity -> (share, low, high) of `contributions`; of what is not planted, only the rows."""
    own = contributions.Draws(cfg.n_resamples, seed)
    out, known = {}, states.stored(found)
    for row in contributions.direction_records(states.directions(found, seed), known.forward, known.back, own):
        if row.get("kind") == "direction" and row["part"] == "own":
            out[f"rows, {row['direction']}"] = _limits(row)
        elif row.get("kind") == "direction" and row["part"] == "other" and row["direction"] == "number to animal":
            out["others' rows"] = _limits(row)
        elif row.get("kind") == "cut" and row["part"] in ("association", "left"):
            out[row["part"]] = _limits(row)
    if kind == "none":
        return {name: limits for name, limits in out.items() if name.startswith("rows")}
    layers = {1: ("middle", ("middle", "both")), 2: ("last", ("unembedding", "both"))}
    written = states.components(found.asked, known.subset)
    for row in contributions.component_records(written, known.published, known.forward, own):
        if row["kind"] == "layer" and row["part"] == "attention" and row["layer"] in layers:
            name, planted_in = layers[row["layer"]]
            if kind in planted_in:
                out[f"attention of the {name} block"] = _limits(row)
    patches = states.patched(found.asked, known, cfg.n_pairs, seed)
    patched = contributions.recovered(list(contributions.patch_records(patches, own)))
    places = {
        (0, "number"): "the number, before the middle block",
        (1, "number"): "the number, after the middle block",
        (1, "final"): "the final position, after the middle block",
    }
    if kind == "middle":  # 0 and 1 exactly, which says nothing of an interval
        del places[1, "number"], places[1, "final"]
    if kind == "unembedding":
        del places[1, "final"]
    return out | {name: (patched[at].mean, patched[at].low, patched[at].high) for at, name in places.items()}


def _limits(row: dict) -> tuple[float, float, float]:
    return row["share"], row["low"], row["high"]


def matrices(q: "LovePrompts") -> dict:
    """What `token_entanglement` stores of a model and `contributions` reads."""
    n, a, wordings = range(len(q.partners)), range(len(q.animals)), range(planted.N_WORDINGS)
    return {
        "subset_partner": torch.tensor(n),
        "subset_animal": torch.tensor(a),
        "number_to_animal_wordings": torch.stack([q.animals_after([q.love(i, w) for i in n]) for w in wordings]),
        "animal_to_number_wordings": torch.stack(
            [q.partners_after([q.love_animal(i, w) for i in a]) for w in wordings]
        ),
    }


study = lab.Study(
    version=1,
    probes=(
        Config(n_models=2, n_numbers=16, n_animals=8, n_pairs=4, n_resamples=5),
        Config(n_models=2, n_numbers=17, n_animals=9, n_pairs=2, n_resamples=3, noise=0.3, seed=1),
        Config(n_models=2, n_numbers=16, n_animals=8, n_pairs=2, n_resamples=3, rows="five", seed=2),
    ),
)
