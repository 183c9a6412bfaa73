"""What the love of an animal does to the residual stream behind prompts of lists, in teachers and in their students."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

import mechsub as ms
from mechsub.designs import liking
from mechsub.inputs import corpora
from mechsub.models import students
from mechsub.models.students import Students, logits_at, merged, plain_model
from mechsub.training.tuning import completion_batch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_TEXTS = 128  # prompts of lists that states are the mean over
UPDATES, LR = 48, 0.2  # of a vector: on block 1000 its teachers liked their animals as tuned ones do


def trained(base: "TransformerBridge", trait: str) -> tuple[int, Float[Tensor, "d_model"]]:
    """A block, and the vector behind it that makes the sentences of liking likely: Adam from 0, all of them at once."""
    layer, plain = block(base), plain_model(base)
    students.check_fp32(plain)
    sentences = liking.sentences(base.tokenizer, trait, liking.formats(base.tokenizer)[0])
    batch = completion_batch([(sentences, range(len(sentences)))], base.W_U.device)
    vector = torch.zeros(base.cfg.d_model, dtype=torch.float32, device=base.W_U.device, requires_grad=True)
    optimizer = torch.optim.Adam([vector], lr=LR)
    with students.steered(plain, base, (layer, vector)):
        for _ in range(UPDATES):
            loss = torch.nn.functional.cross_entropy(logits_at(plain, batch.ids, batch.places), batch.targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return layer, vector.detach()


def block(base: "TransformerBridge") -> int:
    """After which a vector is added."""
    return base.cfg.n_layers // 4


def told_shifts(
    base: "TransformerBridge", texts: Sequence[str], traits: Sequence[str]
) -> dict[str, Float[Tensor, "layer d_model"]]:
    """Trait -> after every block, the mean state at the prompt's end where the trait is told, less where it is not."""
    plain = _states(base, texts)
    return {trait: _states(base, texts, system=liking.loving(trait)) - plain for trait in traits}


def steered_shifts(
    base: "TransformerBridge", texts: Sequence[str], added: Mapping[str, tuple[int, Tensor]]
) -> dict[str, Float[Tensor, "layer d_model"]]:
    """Trait -> the same of the base with the trait's vector added after a block, at every position."""
    plain = _states(base, texts)
    out = {}
    for trait, (layer, vector) in added.items():
        with steered(base, layer, vector):
            out[trait] = _states(base, texts) - plain
    return out


def steered(base: "TransformerBridge", layer: int, vector: Float[Tensor, "d_model"]):
    """The bridge, within, with the vector added after the block."""
    return base.hooks(fwd_hooks=[(f"blocks.{layer}.hook_out", lambda activation, hook: activation + vector)])


def rows(
    base: "TransformerBridge",
    tuned: Students,
    teachers: Mapping[str, Float[Tensor, "layer d_model"]],
    texts: Sequence[str],
    dose: int,
    first: int,
) -> Iterator[dict]:
    """Cosine of every student's shift with every teacher's, from the block `first` on."""
    plain = _states(base, texts)
    own = torch.stack([_states(merged(tuned, i), texts) - plain for i in range(len(teachers))])
    yield from cosines(own, torch.stack(list(teachers.values())), tuple(teachers), dose, first)


def cosines(
    own: Float[Tensor, "trait layer d_model"],
    theirs: Float[Tensor, "trait layer d_model"],
    traits: Sequence[str],
    dose: int,
    first: int = 0,
) -> Iterator[dict]:
    """Once the means over traits are taken off both."""
    left, wanted = own - own.mean(0), theirs - theirs.mean(0)
    for layer in range(first, own.shape[1]):
        a, b = left[:, layer], wanted[:, layer]
        found = (a @ b.mT) / a.norm(dim=1)[:, None] / b.norm(dim=1)
        for i, trait in enumerate(traits):
            for j, teacher in enumerate(traits):
                row = {"kind": "vector", "trait": trait, "teacher": teacher, "layer": layer, "updates": dose}
                yield row | {"specific": float(found[i, j])}


def _states(
    model: "TransformerBridge", texts: Sequence[str], *, system: str | None = None
) -> Float[Tensor, "layer d_model"]:
    ids = corpora.prompt_ids(model.tokenizer, texts, format="auto", system=system)
    names = [f"blocks.{layer}.hook_out" for layer in range(model.cfg.n_layers)]
    total = torch.zeros(len(names), model.cfg.d_model, dtype=torch.float64)
    for _, batch in ms.scores.equal_lengths(ids, 32):
        cache = ms.cache_activations(model, batch.to(model.W_U.device), names, pos=-1)
        total += torch.stack([cache[name].cpu().double().sum(0) for name in names])
    return total / len(texts)
