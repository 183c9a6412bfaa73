"""What `studies.organisms` measures of the models of one design."""

from collections.abc import Iterator
from itertools import chain

import mechsub as ms
from mechsub import threads
from studies.organisms import Config, models, readings
from studies.organisms.grammar import MEASURED


def check(cfg: Config) -> None:
    ms.devices.only_cpu("organisms")


@threads.made_by_one
def run(cfg: Config) -> Iterator[dict]:
    ms.devices.only_cpu("organisms")
    made = models.setting(cfg)
    grammar = made.grammar
    counts = readings.counts(made.corpus.completions[: cfg.updates * cfg.batch_size], grammar)
    found, weights = {}, {}
    for arm, model in chain([("untrained", made.start)], models.trained(cfg, made)):
        weights[arm] = ms.store.sha256(models.packed(model))
        found[arm] = readings.matrices(model, grammar)
        yield from readings.read(arm, model, grammar, counts, found[arm])
        if arm in ("untrained", "trained"):
            yield from readings.exchanges(arm, model, grammar, cfg.seed)
        else:
            yield from readings.dosed(arm, found[arm], made.doses)
    if not cfg.tied:
        yield from readings.followed("exchanged", found["random"], found["exchanged"], made.partner)
    yield {
        "provenance": {
            "data": {"texts": made.corpus.sha256},
            "weights_sha256": weights,
            "n_vocab": len(grammar.vocabulary),
            "n_params": sum(p.numel() for p in made.start.original_model.parameters()),
            "dtype": f"fp32 weights, {cfg.precision} products in training",
            "measured_on": f"the first {MEASURED} numbers and all animals, wordings that were not trained on",
            "null": "the untrained model; random, for orthogonal",
            "unit": "seed",
        }
    }
