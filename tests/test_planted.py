"""Planted models: geometry in W_U is found by the geometric metrics only, a mid-layer direction by steering only.

Real forward passes of a tiny Llama with untied weights, in which numbers are single tokens. In both plants loving an
animal raises that animal or its numbers, since W_U's rows follow what its prompt writes; they differ in where a number
meets its animal.
"""

import pytest
import torch
from tiny_llama import save_tiny_llama

from mechsub.designs import love
from mechsub.designs.love import Prompted, last_states
from mechsub.inputs.prompts import encode
from mechsub.measures.scores import build_tries, string_states
from mechsub.models import language
from studies.unembed_projection import language as projection
from studies.unembed_projection.compare import compare

GEOMETRIC = ("cosine", "dot", "centered_cosine", "number_centered", "causal")
FORWARD, BACK = projection.DIRECTIONS
MIDDLE = 1  # of blocks 0, 1, 2
D = 32


def questions(folder):
    cfg = love.Asking(model=str(folder), n_animals=24, n_partners=200, n_wordings=1)
    model = language.load_language_model(cfg.model)
    return love.LovePrompts(model, love.choose_animals(model.tokenizer, cfg), love.choose_partners(cfg), cfg)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def animal_of(q):
    """The animal that each number is given."""
    return torch.randint(len(q.animals), (len(q.partners),), generator=torch.Generator().manual_seed(5))


def number_tokens(q):
    return [ids[-1] for ids in encode(q.model.tokenizer, q.strings)]


def loved(q):
    return [q.love_animal(i, 0) for i in range(len(q.animals))]


def raise_loved_animals(q, node):
    """W_U's row of every animal becomes what loving it adds to the final state, at the prompt's end (node 0) or where
    a number stands (node 1)."""
    (trie,) = build_tries(encode(q.model.tokenizer, q.strings))
    states = string_states(q.model, loved(q), trie, name="unembed.hook_in")[:, node]
    rows = torch.nn.functional.normalize(states - states.mean(0), dim=-1) * q.model.W_U.norm(dim=0).mean()
    q.model.W_U[:, q.tokens] = rows.T


def plant_geometry(q):
    """A number's row of W_U is its animal's and noise; nothing else knows of the pair."""
    raise_loved_animals(q, node=1)
    rows = q.model.W_U[:, q.tokens].T[animal_of(q)]
    noise = normal(len(rows), D, seed=9) * rows.norm(dim=-1).mean() / D**0.5
    q.model.W_U[:, number_tokens(q)] = (rows + 0.7 * noise).T


def plant_direction(q):
    """Block 1's attention reads a number's random code, and writes its animal's residual of that block.

    The queries are 0, so that every position is read alike, and W_V is the identity: what W_O maps is the mean of the
    positions. W_O is fitted to what numbers and animals bring there. W_U's rows of numbers stay as they were drawn.
    """
    attention = q.model.blocks[MIDDLE].attn
    attention.q.weight.zero_(), attention.v.weight.copy_(torch.eye(D)), attention.o.weight.zero_()
    codes = normal(len(q.animals), D, seed=9)[animal_of(q)] + 0.2 * normal(len(q.partners), D, seed=10)
    q.model.W_E[number_tokens(q)] = 0.9 * codes
    raise_loved_animals(q, node=0)
    numbers = [q.love(i, 0) for i in range(len(q.partners))]
    read = {name: centred(mean_read(q, prompts)) for name, prompts in (("numbers", numbers), ("animals", loved(q)))}
    written = centred(last_states(q.model, loved(q))[MIDDLE])
    sources = torch.cat([read["numbers"], 3 * read["animals"]])
    targets = torch.cat([3 * written[animal_of(q)], 3 * written])
    attention.o.weight.copy_(torch.linalg.lstsq(sources, targets).solution.T)


def centred(x):
    return x - x.mean(0)


def mean_read(q, prompts):
    from mechsub import cache_activations

    name = f"blocks.{MIDDLE}.attn.o.hook_in"
    rows = [cache_activations(q.model, prompt[None], [name], pos=-1)[name] for prompt in prompts]
    return torch.cat(rows).reshape(len(prompts), D)


def asked(q):
    n = range(len(q.partners))
    tensors = {
        "number_to_animal": q.animals_after([q.love(i, 0) for i in n]),
        "animal_to_number": q.partners_after(loved(q)),
        "none_to_number": q.partners_after([q.ask(None)])[0],
        "subset_partner": torch.arange(0, len(n), 2),
        "subset_animal": torch.arange(len(q.animals)),
    }
    more = [q.animals_after([q.love(i, 1) for i in n[::2]])]
    tensors["number_to_animal_wordings"] = torch.stack([tensors["number_to_animal"][::2], *more])
    more = [q.partners_after([q.love_animal(i, 1) for i in range(len(q.animals))])]
    tensors["animal_to_number_wordings"] = torch.stack([tensors["animal_to_number"], *more])
    return Prompted(q, tensors)


def rows_of(found, metric, kind="summary"):
    return [row for row in compare(projection.gather(found, metric), 199, seed=0) if row["kind"] == kind]


def summary(found, metric, direction, part="all", rows="all"):
    wanted = {"direction": direction, "part": part, "rows": rows}.items()
    (row,) = [row for row in rows_of(found, metric) if wanted <= row.items()]
    return row


def finds(row):
    return row["partial_difference_low"] > 0.05 and max(row["p"], row["p_animals"]) <= 0.02


def misses(row):
    return row["partial_difference_low"] < 0 and abs(row["partial_difference"]) < 0.1


@pytest.fixture(scope="module", params=[plant_geometry, plant_direction, None])
def planted(request, tmp_path_factory):
    q = questions(save_tiny_llama(tmp_path_factory.mktemp("llama"), tied=False, n_kv=4))
    before = q.model.W_U[:, number_tokens(q)].clone()
    if request.param is not None:
        with torch.no_grad():
            request.param(q)
    name = getattr(request.param, "__name__", "nothing planted")
    assert torch.equal(before, q.model.W_U[:, number_tokens(q)]) == (name != "plant_geometry")
    return name, asked(q)


@pytest.mark.parametrize("metric", GEOMETRIC)
def test_geometric_metrics_find_geometry_and_miss_a_direction(planted, metric):
    name, found = planted
    if name == "plant_geometry":
        assert finds(summary(found, metric, BACK)) and summary(found, metric, BACK)["partial_difference"] > 0.9
    else:
        assert misses(summary(found, metric, FORWARD))


def test_steering_finds_a_direction_in_its_layer_and_misses_geometry(planted):
    name, found = planted
    if name != "plant_direction":
        assert misses(summary(found, "steering", BACK, "all layers"))
        return
    assert finds(summary(found, "steering", FORWARD, "all layers"))
    curve = [row["partial_difference"] for row in rows_of(found, "steering", "layer") if row["direction"] == FORWARD]
    assert curve[MIDDLE] > 2 * curve[MIDDLE - 1] and curve[MIDDLE] > 0.15


def test_input_embeddings_know_of_neither(planted):
    assert misses(summary(planted[1], "embedding", FORWARD)) and misses(summary(planted[1], "embedding", BACK))


def test_attribution_adds_up_and_its_concept_carries_planted_geometry(planted):
    name, found = planted
    assert summary(found, "dla", BACK, "total")["partial"] == pytest.approx(1, abs=1e-3)
    shares = {}
    for row in rows_of(found, "dla", "share"):
        shares.setdefault(row["part"], []).append(row["share"])
    mean = {part: sum(values) / len(values) for part, values in shares.items()}
    assert mean["concept"] + mean["rest"] + mean["scale"] == pytest.approx(1, abs=1e-3)
    if name == "plant_geometry":
        assert finds(summary(found, "dla", BACK, "concept"))
        assert summary(found, "dla", BACK, "concept", rows="ceiling's")["of_ceiling"] > 0.5
        assert mean["concept"] > 0.5 and mean["concept"] > 4 * mean["other"]
    else:
        assert mean["concept"] < 0.25
        assert summary(found, "dla", BACK, "concept", rows="ceiling's")["of_ceiling"] < 0.5
