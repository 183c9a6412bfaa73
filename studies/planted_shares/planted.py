"""Tiny Llamas in which entanglement is planted, so that what passes through which part of them is known.

The coordinates of the residual have one use each: a code for every number and animal, the wording's words, a copy of
the codes, and the outputs, all that W_U reads. Queries are 0 and W_V is the identity on what a block reads, so that
attention takes the mean over positions, and W_O maps the code of what is loved to what loving it writes:

* unembedding: the last block writes along the loved thing's own row of W_U, at `rows` nats a unit of output;
* middle: the middle block writes a direction at right angles to that row, at `middle`;
* noise: the first block's MLP writes a direction that belongs to the loved thing and to one wording of the prompt.

Where rows of W_U and directions are isotropic, the two plants move an output equally for equal strength, and are
independent: of what comes back in other wordings, rows^2 / (rows^2 + middle^2) passes through the rows, in expectation
over numbers and animals. By the law "five" they are like those of trained models: nearly all of their variance is in
five dimensions; rows of numbers also have a mean of their own and rows of animals another, and lengths of rows differ.
What passes through these has no closed form; it is that of many other words of the same law.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Float
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformer_lens.utilities import derive_generator
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import mechsub as ms

if TYPE_CHECKING:
    from mechsub.designs.love import LovePrompts

N_OUTPUTS = 32  # dimensions that W_U reads: fewer than numbers, so that their rows overlap
N_WORDINGS = 3
N_LAYERS = 3
SIZE = 30.0  # norm of every embedding; what blocks write is about 1, so that norms hardly scale it
Rows = Literal["isotropic", "five"]
Way = Literal["forward", "back"]
WAYS: tuple[Way, Way] = ("forward", "back")
_WIDE, _THIN = 5, 0.1  # "five": dimensions of full size, and the size of all others
_MEAN, _LENGTHS = 0.7, 0.3  # "five": size of a kind's mean row, of one row's; spread of log lengths
_MANY = 1500  # words of a kind by which what "five" shares is known
ASSOCIATION = ("What animal does the number make you think of?", "The number makes me think of the")


class Strengths(NamedTuple):
    """Of what is written, in units that rows and directions share."""

    rows: float
    middle: float
    noise: float

    @property
    def share(self) -> float:
        """Of what comes back, what passes through isotropic rows of the loved thing; 0 where nothing is planted."""
        return self.rows**2 / max(self.rows**2 + self.middle**2, 1e-300)


class Law(NamedTuple):
    """What rows are drawn by: sizes of the outputs' dimensions, means of numbers and animals, spread of log lengths."""

    sizes: Float[Tensor, "output"]
    means: Float[Tensor, "kind output"]
    lengths: float

    def words(self, n: int, kind: int, draw: torch.Generator) -> Float[Tensor, "word output"]:
        rows = torch.randn(n, N_OUTPUTS, generator=draw) * self.sizes + self.means[kind]
        return rows * (self.lengths * torch.randn(n, 1, generator=draw)).exp()

    def beside(self, own: Float[Tensor, "word output"], draw: torch.Generator) -> Float[Tensor, "word output"]:
        """A direction for every word, at right angles to its own row."""
        other = torch.randn(own.shape, generator=draw) * self.sizes
        return torch.nn.functional.normalize(other - (other * own).sum(-1, keepdim=True) * own, dim=-1)


def law(rows: Rows, seed: int) -> Law:
    if rows == "isotropic":
        return Law(torch.ones(N_OUTPUTS), torch.zeros(2, N_OUTPUTS), 0.0)
    sizes = torch.full((N_OUTPUTS,), _THIN).index_fill(0, torch.arange(_WIDE), 1.0)
    draw = derive_generator(seed, "means of rows")
    return Law(sizes, _MEAN * torch.randn(2, N_OUTPUTS, generator=draw) * sizes, _LENGTHS)


class Shares(NamedTuple):
    """Of what comes back, what passes through the loved thing's row, and through another's of its kind."""

    own: float
    other: float


def expected(strengths: Strengths, rows: Rows, seed: int, way: Way, removed: Float[Tensor, "output"]) -> Shares:
    """Number to animal (forward) or animal to number, of all words of the law that the model of this seed has.

    `removed`: the vocabulary's mean row, which is no part of any word's row.
    """
    if rows == "isotropic":
        return Shares(strengths.share, 1 / N_OUTPUTS)
    if not strengths.rows and not strengths.middle:
        return Shares(0.0, 0.0)
    drawn_by, draw = law(rows, seed), derive_generator(seed, "words by which shares are known", way)
    kinds = (0, 1) if way == "forward" else (1, 0)
    loved, scored = (drawn_by.words(_MANY, kind, draw) - removed for kind in kinds)
    own = torch.nn.functional.normalize(loved, dim=-1)
    written = strengths.rows * own + strengths.middle * drawn_by.beside(own, draw)
    scored = (scored - scored.mean(0)).double()  # of so many words, centring is done on their rows and columns
    whole = (written - written.mean(0)).double() @ scored.T

    def through(rows: Tensor) -> float:
        part = (written * rows).sum(-1, keepdim=True) * rows
        return float(((part - part.mean(0)).double() @ scored.T * whole).sum() / whole.square().sum())

    alone = {(True, False): 1.0, (False, True): 0.0}.get((strengths.rows > 0, strengths.middle > 0))
    return Shares(through(own) if alone is None else alone, through(own.roll(1, 0)))


class Planted(NamedTuple):
    """What was planted: effects on the outputs of one direction, [loved, scored], through rows and by the middle.

    expected: the shares of all words of the same law.
    """

    rows: Float[Tensor, "loved scored"]
    middle: Float[Tensor, "loved scored"]
    expected: Shares

    @property
    def share(self) -> float:
        """Of the interaction of these very numbers and animals, what is in the rows; nan where nothing is planted."""
        rows, whole = (_double_centred(x) for x in (self.rows, self.rows + self.middle))
        return float((rows * whole).sum() / (whole * whole).sum())


def _double_centred(x: Tensor) -> Tensor:
    """By projections: written anew, so that it does not share an error with what it is compared to."""
    left, right = (torch.eye(n, dtype=x.dtype) - 1 / n for n in x.shape)
    return left @ x @ right


def save_blank(folder: Path, n_loved: int) -> Path:
    """A LlamaForCausalLM wide enough for `n_loved` codes, and its tokenizer; the weights are drawn by `plant`."""
    tokenizer = make_tokenizer()
    n_heads = 4
    width = 2 * n_loved + N_WORDINGS + 1 + N_OUTPUTS
    width += -width % (2 * n_heads)
    config = LlamaConfig(
        hidden_size=width, intermediate_size=N_WORDINGS * n_loved, num_hidden_layers=N_LAYERS,
        num_attention_heads=n_heads, num_key_value_heads=n_heads, vocab_size=len(tokenizer),
        max_position_embeddings=256, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer():
    """Words with the space before them, and numbers of up to three digits, are single tokens."""
    split = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+|\d{1,3}|\n+|."), "isolated")
    animals = [f" {form}" for animal in ms.words.animals() for form in (animal.singular, animal.plural)]
    texts = [
        w.love("x", kind, plural=p) for w in ms.prompts.WORDINGS for kind in ("number", "animal") for p in (False, True)
    ]
    texts += [f"{w.question}\n {w.answer}" for w in ms.prompts.WORDINGS] + [
        *ASSOCIATION,
        "System: x\nUser: x\nAssistant:",
    ]
    texts += [" Be brief? Say it?", *ms.words.numbers(), *animals]
    pieces = [piece for text in texts for piece, _ in split.pre_tokenize_str(text)]
    vocab = dict.fromkeys(["<|begin|>", "<|unknown|>", *map(chr, range(32, 127)), "\n", *pieces])
    core = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(vocab)}, "<|unknown|>"))
    core.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ("<|begin|>", "<|unknown|>")]
    )
    core.pre_tokenizer, core.decoder = split, decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|begin|>", unk_token="<|unknown|>", clean_up_tokenization_spaces=False
    )


@torch.no_grad()
def plant(q: "LovePrompts", strengths: Strengths, seed: int, rows: Rows = "isotropic") -> tuple[Planted, Planted]:
    """Draw every weight of the model; returns what was planted number to animal, and animal to number."""
    model, draw = q.model, torch.Generator().manual_seed(seed)
    numbers = [ids[-1] for ids in _encoded(q)]
    n_loved = len(numbers) + len(q.tokens)
    codes, words = slice(0, n_loved), slice(n_loved, n_loved + N_WORDINGS)
    copies, outputs = slice(words.stop + 1, words.stop + 1 + n_loved), slice(-N_OUTPUTS, None)
    _embed(q, codes, words)

    model.W_U.zero_()
    drawn_by = law(rows, seed)
    columns = torch.randn(N_OUTPUTS, model.W_U.shape[-1], generator=draw)
    if rows == "five":
        columns *= drawn_by.sizes[:, None]
        for kind, tokens in enumerate((numbers, list(q.tokens))):
            columns[:, tokens] = drawn_by.words(len(tokens), kind, draw).T
    removed = columns.mean(-1)
    columns -= removed[:, None]
    model.W_U[outputs] = columns.to(model.W_U)
    own = torch.nn.functional.normalize(columns[:, [*numbers, *q.tokens]].T, dim=-1)
    other = drawn_by.beside(own, draw)

    for block, (target, written) in enumerate(
        ((copies, torch.eye(n_loved)), (outputs, strengths.middle * other), (outputs, strengths.rows * own))
    ):
        attention, mlp = model.blocks[block].attn, model.blocks[block].mlp
        for weight in (attention.q.weight, attention.v.weight, attention.o.weight, mlp.out.weight):
            weight.zero_()
        attention.v.weight[codes, codes] = torch.eye(n_loved)
        attention.o.weight[target, codes] = written.T
        if block == 0:
            attention.v.weight[words, words] = attention.o.weight[words, words] = torch.eye(N_WORDINGS)
    _plant_noise(q, strengths.noise, codes, words, copies, outputs, drawn_by.sizes, draw)

    by_rows, by_middle = (strengths.rows * own).double(), (strengths.middle * other).double()
    n, columns = len(numbers), columns.double()
    forward, back = (expected(strengths, rows, seed, way, removed) for way in WAYS)
    animals, some = columns[:, q.tokens], columns[:, numbers]
    return (
        Planted(by_rows[:n] @ animals, by_middle[:n] @ animals, forward),
        Planted(by_rows[n:] @ some, by_middle[n:] @ some, back),
    )


def _encoded(q: "LovePrompts") -> list[tuple[int, ...]]:
    return ms.prompts.encode(q.model.tokenizer, q.strings, behind=[q.ask(None)])


def _embed(q: "LovePrompts", codes: slice, words: slice) -> None:
    """Loved things have a code each, words of one wording only its coordinate, everything else one in common."""
    loved = [[q.love(i, w) for w in range(N_WORDINGS)] for i in range(len(q.partners))]
    loved += [[q.love_animal(i, w) for w in range(N_WORDINGS)] for i in range(len(q.animals))]
    neutral = ms.prompts.prompt(q.model.tokenizer, ASSOCIATION[0], answer=ASSOCIATION[1], format=q.cfg.format)
    q.model.W_E.zero_()
    q.model.W_E[:, words.stop] = SIZE
    in_wording = [set(torch.cat([asked[w] for asked in loved]).tolist()) for w in range(N_WORDINGS)]
    for w, tokens in enumerate(in_wording):
        elsewhere = set(neutral.tolist()).union(*(other for other in in_wording if other is not tokens))
        if not (unique := sorted(tokens - elsewhere)):
            raise ValueError(f"wording {w} has no word of its own, by which a model could tell it")
        q.model.W_E[unique] = SIZE * torch.eye(q.model.W_E.shape[1])[words.start + w]
    for i, asked in enumerate(loved):
        other = loved[1 if i == 0 else 0] if i < len(q.partners) else loved[-1 if i < len(loved) - 1 else -2]
        own = set(torch.cat(asked).tolist()) - set(torch.cat(other).tolist())
        q.model.W_E[sorted(own)] = SIZE * torch.eye(q.model.W_E.shape[1])[codes.start + i]


def _plant_noise(q: "LovePrompts", strength: float, codes, words, copies, outputs, sizes, draw) -> None:
    """A unit for every wording and loved thing, open in that wording alone; it writes `strength` of the signal."""
    mlp, n_loved = q.model.blocks[0].mlp, codes.stop - codes.start
    getattr(mlp, "in").weight.zero_(), mlp.gate.weight.zero_()
    for w in range(N_WORDINGS):
        units = slice(w * n_loved, (w + 1) * n_loved)
        mlp.gate.weight[units, words.start + w] = 4.0
        getattr(mlp, "in").weight[units, copies] = torch.eye(n_loved)
        directions = torch.nn.functional.normalize(torch.randn(n_loved, N_OUTPUTS, generator=draw) * sizes, dim=-1)
        mlp.out.weight[outputs, units] = directions.T
        names = ["blocks.0.attn.hook_out", "blocks.0.mlp.hook_out"]
        read, written = ms.cache_activations(q.model, q.love(0, w)[None], names, pos=-1).values()
        mlp.out.weight[outputs, units] *= strength * float(read[0, copies].norm() / written[0, outputs].norm())
