"""What is the papers' ratio made of, and what does the interaction of animal and number pass through?

The published log ratio log P(animal | "You love 087 ...") - log P(animal | no system message) is written as an exact
sum: any system message, any love, any number, the animal's own baseline, the number for all animals alike, the
interaction of animal and number, and wording and date. Share of a part: sum(part ratio) / sum(ratio^2), over all pairs
and over the pairs that the papers would report. Shares add up to 1. The part of the interaction that is specific to
pairs (`designs.word_parts`) has a share of its own.

The interaction e, as other wordings bring it back, is then cut three ways. Share of a part: sum(part e) / sum(whole e),
double-centred:

* direction: the part that passes through the loved thing's rows of W_U. Nulls: other loved things' rows, and a random
  direction that takes as much. Then, of the rest, the part that neutral association prompts predict (null: numbers
  shuffled), and the part that is left;
* component: what embedding, attention and MLP of every block write to the animals' logits at the final position (direct
  logit attribution);
* position: activation patching from another number's prompt of equal length, and attribution patching beside it.

Units: animals and numbers, crossed and resampled; numbers for the pairs that the papers would report; animals and pairs
of numbers for patching. Null of training: weights that never saw a text (`--weights random-0`). docs/methods.md has
the details.

    python -m studies.contributions --family numbers names cities colors
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechsub import lab
from mechsub.designs import contributions, love
from mechsub.lazy import late

if TYPE_CHECKING:
    from mechsub.designs import contribution_states
else:
    contribution_states = late("mechsub.designs.contribution_states")


@dataclass(frozen=True)
class Config(love.OfMatrices, love.OfFamily):
    n_pairs: lab.Count = lab.option(24, "pairs of numbers whose residuals are exchanged")
    n_resamples: lab.Count = lab.option(300, "resamples of every interval, shuffles of every null")
    seed: lab.Index = lab.option(0, "of pairs, resamples and shuffles")


def check(cfg: Config) -> None:
    if cfg.n_pairs < 4:  # contribution_states.FEWEST_PAIRS, which is imported when the model is asked
        raise ValueError("--n-pairs must be at least 4: the interval of patching is over pairs")
    love.check_model(cfg)


def upstream(cfg: Config) -> dict:
    return {"matrices": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, matrices: lab.Stored) -> Iterator[dict]:
    found = love.prompted(cfg, matrices.tensors(), lab.show_progress)
    if len(found.tensors["number_to_animal_wordings"]) < 2:
        raise ValueError("the stored matrices have one wording; run token_entanglement with more")
    gathered = contribution_states.gather(found, cfg.n_pairs, cfg.seed, lab.show_progress)
    lab.show_progress(0.7, "resamples")
    yield from contributions.compare(gathered, contributions.Draws(cfg.n_resamples, cfg.seed))
    yield {
        "provenance": {
            **love.provenance(found),
            "basis": "rows of W_U with the final norm's gain folded in, the vocabulary's mean removed",
            "words": f"the {len(found.tensors['subset_partner'])} {cfg.family} of token_entanglement's subset",
            "null": "other loved things' rows, random directions, shuffled numbers",
            "unit": "animals and numbers (crossed); animals and disjoint pairs of numbers (crossed) for patching",
        }
    }


study = lab.Study(
    version=2,  # what is specific to pairs; chosen pairs by their numbers
    probes=(
        Config(model="tests/probes/models/tiny", spaced=False, n_pairs=4, n_resamples=9),
        Config(model="tests/probes/models/pair/instruct", n_pairs=4, n_resamples=9, seed=1),
        Config(model="tests/probes/models/tiny", family="colors", n_pairs=4, n_resamples=9),
    ),
)
