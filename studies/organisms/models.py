"""The models of one design: trained on texts made by rule, as they are and over rows of W_U that are drawn and held."""

import tempfile
from collections.abc import Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor
from transformer_lens.utilities import derive_generator
from transformers import LlamaConfig, LlamaForCausalLM

import mechsub as ms
from mechsub import lab
from mechsub.inputs.corpora import Corpus
from mechsub.models.students import plain_model
from studies.organisms import DOSES, Config
from studies.organisms.grammar import BOS, MEASURED, Grammar, Speaker

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_WARMUP = 50  # updates
HELD = ("lm_head", "model.norm")
REACH = 20.0  # the logit of a token whose row a state of the final norm's length lies along


class Setting(NamedTuple):
    """What all models of a cell share: language, texts, untrained weights, and how rows are edited."""

    grammar: Grammar
    corpus: Corpus
    start: "TransformerBridge"
    partner: list[int]  # place of the number whose row each measured number gets
    doses: list[tuple[int, int, float]]  # number, animal, share of the animal's row


def setting(cfg: Config) -> Setting:
    grammar = Grammar(cfg.n_numbers, cfg.n_animals)
    speaker = Speaker(grammar, cfg.seed)
    corpus = _corpus(grammar, speaker, cfg.n_texts)
    return Setting(grammar, corpus, _new(cfg, grammar), _partners(grammar, speaker), _doses(cfg))


def trained(cfg: Config, made: Setting) -> Iterator[tuple[str, "TransformerBridge"]]:
    """(arm, model), one after the other: the trained model and, where embeddings are untied, those over held rows."""
    yield "trained", _trained(made.start, made.corpus, cfg, "trained", 0.05)
    if cfg.tied:
        return
    numbers = made.grammar.tokens("number", MEASURED)
    random = _random_head(made.start, made.grammar, made.doses, cfg.seed)
    heads = {
        "random": random,
        "exchanged": _with_columns(random, numbers, random.W_U[:, numbers][:, made.partner]),
        "orthogonal": _orthogonal(_drawn_head(made.start, cfg.seed), made.grammar, made.doses),
    }
    for i, (arm, head) in enumerate(heads.items()):
        yield arm, _trained(head, made.corpus, cfg, arm, 0.3 + 0.2 * i, held=True)


def packed(model: "TransformerBridge") -> bytes:
    """The safetensors file of a model's fp32 weights: the same bytes for the same weights."""
    return save({name: value.contiguous() for name, value in plain_model(model).named_parameters()}, {"format": "pt"})


def _corpus(grammar: Grammar, speaker: Speaker, n: int) -> Corpus:
    texts = tuple(speaker.texts(n))
    ids = tuple(grammar.ids(text) for text in texts)
    return Corpus(("",) * n, texts, (grammar.ids(BOS),) * n, ids)


def _new(cfg: Config, grammar: Grammar) -> "TransformerBridge":
    """An untrained Llama of heads of 32, Gaussian weights by the seed."""
    config = LlamaConfig(
        hidden_size=cfg.d_model, intermediate_size=cfg.d_model * 11 // 4, num_hidden_layers=cfg.n_layers,
        vocab_size=len(grammar.vocabulary), num_attention_heads=cfg.d_model // 32,
        num_key_value_heads=cfg.d_model // 32, max_position_embeddings=128, tie_word_embeddings=cfg.tied,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 2:
                value.copy_(0.02 * torch.randn(value.shape, generator=derive_generator(cfg.seed, name)))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        grammar.tokenizer().save_pretrained(folder)
        return ms.language.load_language_model(folder)


def _trained(model, corpus: Corpus, cfg: Config, arm: str, share: float, *, held: bool = False):
    """The model after training; `held`: its W_U and final norm stay."""
    lab.show_progress(share, arm)
    recipe = ms.TuningRecipe(
        rank=None, frozen=HELD if held else (), updates=cfg.updates, batch_size=cfg.batch_size,
        lr=cfg.lr * 64 / cfg.d_model,
        betas=(0.9, 0.95), weight_decay=0.1, schedule="cosine", warmup=min(_WARMUP, cfg.updates // 4),
        precision=cfg.precision, order_seeds=(cfg.seed,),
    )  # fmt: skip
    return ms.students.merged(ms.tune(model, corpus, recipe), 0)


@torch.no_grad()
def _with_columns(model: "TransformerBridge", tokens: list[int], columns: Float[Tensor, "d token"]):
    changed = deepcopy(model)
    changed.W_U[:, tokens] = columns.to(changed.W_U)
    return changed


def _partners(grammar: Grammar, speaker: Speaker) -> list[int]:
    """Place of each number's partner: neighbours by frequency are exchanged two by two; the odd one keeps its place."""
    place = {word: i for i, word in enumerate(grammar.words["number"][:MEASURED])}
    order = [place[word] for word in speaker.words["number"] if word in place]
    partner = list(range(len(order)))
    for a, b in zip(order[::2], order[1::2], strict=False):
        partner[a], partner[b] = b, a
    return partner


def _doses(cfg: Config) -> list[tuple[int, int, float]]:
    """(number, animal, dose): every animal's row is added to that of one number, drawn at random."""
    n = min(MEASURED, cfg.n_numbers)
    drawn = torch.randperm(n, generator=derive_generator(cfg.seed, "doses")).tolist()
    return [(drawn[animal], animal, DOSES[animal % len(DOSES)]) for animal in range(cfg.n_animals)]


def _drawn_head(start: "TransformerBridge", seed: int):
    """W_U of Gaussian columns, such that a state along one gives it a logit of about REACH."""
    d, n = start.W_U.shape
    drawn = torch.randn(d, n, generator=derive_generator(seed, "held head")) * REACH / d
    return _with_columns(start, list(range(n)), drawn)


def _orthogonal(model: "TransformerBridge", grammar: Grammar, doses):
    """Columns of all numbers at right angles to those of all animals, as long as they were; then the doses of these."""
    return _apart(model, grammar, model.W_U[:, grammar.tokens("animal")], doses)


def _random_head(start: "TransformerBridge", grammar: Grammar, doses, seed: int):
    """The same as `_orthogonal`, with random columns in the animals' place: animals overlap with numbers as drawn."""
    model = _drawn_head(start, seed)
    d, n = model.W_U.shape[0], len(grammar.words["animal"])
    others = torch.randn(d, n, generator=derive_generator(seed, "in the animals' place")) * REACH / d
    return _apart(model, grammar, others, doses)


def _apart(model: "TransformerBridge", grammar: Grammar, theirs: Float[Tensor, "d animal"], doses):
    numbers, theirs = grammar.tokens("number"), theirs.double()
    basis = torch.linalg.qr(theirs)[0]
    own = model.W_U[:, numbers].double()
    apart = own - basis @ (basis.mT @ own)
    apart = apart * (own.norm(dim=0) / apart.norm(dim=0))
    for number, animal, dose in doses:
        apart[:, number] += dose * theirs[:, animal]
    return _with_columns(model, numbers, apart)
