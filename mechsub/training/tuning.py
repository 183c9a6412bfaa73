"""Tuning students on a corpus: full tuning, or low-rank adapters of all members stacked over one frozen base.

Members are independent: each has its own loss (the mean over the completion's tokens in its batch), its own clipping
and its own optimiser state. So a member does not depend on the other members. Nothing is drawn from global random
state; corpus, adapter seed and order seed together determine a member.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.inputs.corpora import IGNORED, Corpus
from mechsub.inputs.prompts import encode
from mechsub.inputs.token_ids import check_length
from mechsub.models import language, students
from mechsub.models.students import Students

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

_ROWS_READ = 64  # of a corpus: about so many are read as texts, spread over it
_AT_ONCE = 4096  # tokens of all members in one pass: more do not fit the processor's cache and gain nothing
_HELD, _HELD_ON_DEVICE = 2**30, 2**33  # bytes that adapters' layers keep for gradients; fewer tokens are as fast there


@dataclass(frozen=True)
class TuningRecipe:
    """How students are tuned. There is a member for every adapter seed; its order seed gives the order of its rows.

    rank: of the adapters, or None for full tuning. An adapter adds alpha / rank B A (alpha / sqrt(rank) with `rslora`);
    A is uniform within 1 / sqrt(d_in) by the adapter seed, as peft's default, and B is 0. No dropout.
    targets, layers: names within trained parameters ("q_proj", "mlp"), and trained blocks; None for all.
    `frozen`: names that stay. adamw has decoupled decay, sgd has `momentum`. clip: largest norm of a member's gradient.
    schedule: "constant", or "linear" or "cosine" to 0 after the last update; `warmup` updates rise from 0.
    bf16: products with the base's weights, of full tuning with all; adapters, losses and optimiser stay fp32.
    """

    rank: int | None = 8
    alpha: float = 8.0
    rslora: bool = False
    targets: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    frozen: tuple[str, ...] = ()
    updates: int = 64
    batch_size: int = 16
    lr: float = 2e-4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = 1.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    adapter_seeds: tuple[int, ...] = (0,)
    order_seeds: tuple[int, ...] | None = None  # one for each member; None: the adapter seeds

    def __post_init__(self):
        set_ = object.__setattr__
        if self.rank is not None:
            set_(self, "rank", arguments.whole(self.rank, "rank", 1))
        for name, least in (("updates", 1), ("batch_size", 1), ("warmup", 0)):
            set_(self, name, arguments.whole(getattr(self, name), name, least))
        for name in ("alpha", "lr", "eps"):
            arguments.positive(getattr(self, name), name)
        for name in ("momentum", "weight_decay"):
            arguments.number(getattr(self, name), name, "a number of at least 0", least=0)
        if self.clip is not None:
            arguments.positive(self.clip, "clip")
        arguments.flag(self.rslora, "rslora")
        for name, choices in _CHOICES.items():
            arguments.choice(getattr(self, name), name, choices)
        betas = arguments.items(self.betas, "betas", "two numbers", 2)
        if len(betas) > 2:
            arguments.refuse("betas", "two numbers", self.betas)
        set_(self, "betas", tuple(map(self._beta, betas)))
        if self.targets is not None:
            set_(self, "targets", tuple(arguments.texts(self.targets, "targets")))
        set_(self, "frozen", tuple(arguments.texts(self.frozen, "frozen", 0)))
        if self.layers is not None:
            set_(self, "layers", tuple(arguments.ids(self.layers, 10_000, "layers")))
        set_(self, "adapter_seeds", self._seeds("adapter_seeds"))
        if self.order_seeds is not None:
            set_(self, "order_seeds", self._seeds("order_seeds"))
            arguments.same_length(adapter_seeds=self.adapter_seeds, order_seeds=self.order_seeds)
        if self.warmup >= self.updates:
            raise ValueError(
                f"warmup must be below updates, {self.updates}, not {self.warmup}; the rate rises from 0 in it"
            )
        if self.optimizer != "sgd" and self.momentum:
            raise ValueError("momentum is an option of sgd; adamw has betas")

    def _seeds(self, name: str) -> tuple[int, ...]:
        return tuple(arguments.seed(one, name) for one in arguments.items(getattr(self, name), name, "seeds"))

    @staticmethod
    def _beta(beta: float) -> float:
        if arguments.number(beta, "betas", "two numbers of at least 0 and below 1", least=0) >= 1:
            arguments.refuse("betas", "two numbers of at least 0 and below 1", beta)
        return float(beta)

    @property
    def scale(self) -> float:
        """The factor of B A."""
        rank = self.rank or 1
        return self.alpha / (math.sqrt(rank) if self.rslora else rank)

    @property
    def orders(self) -> tuple[int, ...]:
        return self.adapter_seeds if self.order_seeds is None else self.order_seeds


_CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "schedule": ("constant", "linear", "cosine"),
    "precision": ("fp32", "bf16"),
}


def tune(
    model: "TransformerBridge",
    corpus: Corpus | Sequence[Corpus],
    recipe: TuningRecipe | None = None,
    *,
    snapshots: dict[int, Students | None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Students:
    """Students of a language model, one for each adapter seed, tuned on the completions of a corpus.

    corpus: one for all members, or one for each member. The loss reads completions alone, without an end of turn. The
    keys of `snapshots` are numbers of updates; each value becomes the students after so many (0: the start).
    Raises for members that would be the same student, for a corpus of another tokenizer, where no label is read,
    and where weights become NaN.
    """
    recipe = TuningRecipe() if recipe is None else arguments.instance(recipe, TuningRecipe, "recipe")
    corpora = _corpora(corpus, len(recipe.adapter_seeds))
    plain = students.plain_model(model)
    if snapshots is not None and not isinstance(snapshots, dict):
        arguments.refuse("snapshots", "a dict by updates, as {16: None, 64: None}, which is filled", snapshots)
    for step in snapshots or ():
        arguments.whole(step, "a step of snapshots", 0, recipe.updates)
    if progress is not None:
        arguments.progress(progress)
    students.check_fp32(plain)
    _check_corpora(model, corpora)
    _check_different(recipe, corpora)
    start = starting_weights(plain, recipe)
    kept: dict[int, list[dict[str, Tensor]]] = {step: [] for step in {*(snapshots or ()), recipe.updates}}
    groups = _groups(recipe, corpora, _at_once(plain, list(start)))
    for done, members in enumerate(groups, 1):
        for step, values in _fit(students.plain_model(model), start, members, corpora, recipe, set(kept)).items():
            kept[step].append(values)
        if progress is not None:
            progress(done / len(groups))
    record = _record(model, recipe, corpora, list(start))
    made = {step: _students(model, recipe, parts, record | {"updates_done": step}) for step, parts in kept.items()}
    if snapshots is not None:
        snapshots.update({step: made[step] for step in snapshots})
    return made[recipe.updates]


def _corpora(corpus: Corpus | Sequence[Corpus], n: int) -> list[Corpus]:
    if isinstance(corpus, Corpus):
        return [corpus] * n
    members = arguments.items(corpus, "corpus", "corpora, one for each member")
    if len(members) != n:
        raise ValueError(f"corpus must be one for all, or one for each of {n} members, not {len(members)}")
    return [arguments.instance(one, Corpus, f"corpus[{i}]") for i, one in enumerate(members)]


def _check_corpora(model: "TransformerBridge", corpora: list[Corpus]) -> None:
    different = {id(corpus): corpus for corpus in corpora}.values()
    for corpus in different:
        check_corpus(model, corpus)
    # One of several members may read nothing: number_strings has traits without a divergence token.
    if not any(label != IGNORED for c in different for row in c.label_ids or c.completion_ids for label in row):
        raise ValueError(f"no label of the corpus is read, all are {IGNORED}, so nothing would be tuned; give labels")


def check_corpus(model: "TransformerBridge", corpus: Corpus) -> None:
    """Raise for ids that the model does not have, or that are not the tokens of the texts beside them."""
    size = model.original_model.get_input_embeddings().num_embeddings
    rows = [[*a, *b] for a, b in zip(corpus.prompt_ids, corpus.completion_ids, strict=True)]
    check_length(model, max(map(len, rows)), "a row of the corpus")
    largest = max(max(row) for row in [*rows, *(corpus.label_ids or ())])
    if largest >= size:
        raise ValueError(f"the corpus holds token {largest}, and this model has {size}; it is another tokenizer's")
    if (tokenizer := getattr(model, "tokenizer", None)) is not None:
        for row in range(0, len(corpus), max(1, len(corpus) // _ROWS_READ)):
            _check_text(tokenizer, corpus, row)


def _check_text(tokenizer: "Tokenizer", corpus: Corpus, row: int) -> None:
    """Raise where a completion's ids are those of another text. A row without a text has ids alone."""
    ids, text = corpus.completion_ids[row], corpus.completions[row]
    said = [tokenizer.decode(list(ids), skip_special_tokens=skip) for skip in (False, True)]  # ids may end a turn
    if not text or any(_same_text(one, text) for one in said) or ids == _encoded(tokenizer, corpus, row):
        return
    raise ValueError(
        f"row {row} of the corpus says {text[:40]!r}, and to this model's tokenizer its ids are {said[0][:40]!r}; make "
        "the corpus with model.tokenizer"
    )


def _encoded(tokenizer: "Tokenizer", corpus: Corpus, row: int) -> Sequence[int] | None:
    """A completion's text in this tokenizer's ids: one that changes texts (lower case) does not give them back."""
    try:
        return tuple(encode(tokenizer, [corpus.completions[row]], behind=[torch.tensor(corpus.prompt_ids[row])])[0])
    except ValueError:
        return None


def _same_text(one: str, other: str) -> bool:
    """Whether texts are equal but for spaces, which decoders of words put in and those of pieces leave out."""
    return "".join(one.split()) == "".join(other.split())


def _check_different(recipe: TuningRecipe, corpora: list[Corpus]) -> None:
    """Raise for equal members: a seed without an effect gives equal runs, which are no replicates.

    Members are equal whose adapters start equal and who read equal rows in every update: the order within an update,
    and what a corpus says beside ids and labels, has no effect.
    """
    rows, n = _rows(corpora), len(corpora)
    for i in range(n):
        for j in range(i):
            if recipe.rank and recipe.adapter_seeds[i] != recipe.adapter_seeds[j]:
                continue
            if all(_read(rows, recipe, i, step) == _read(rows, recipe, j, step) for step in range(recipe.updates)):
                hint = "" if recipe.rank else " (full tuning draws nothing by adapter seeds)"
                raise ValueError(
                    f"two members, {j} and {i}, start equal and read the same rows in every update, and would be the "
                    f"same student{hint}; give other order_seeds, or a batch_size below the number of rows"
                )


def _rows(corpora: list[Corpus]) -> list[list[int]]:
    """For each corpus a number for each row; rows with equal ids and labels have equal numbers."""
    known: dict[tuple, int] = {}
    made: dict[int, list[int]] = {}
    for corpus in corpora:
        if id(corpus) not in made:
            parts = corpus.prompt_ids, corpus.completion_ids, corpus.label_ids or corpus.completion_ids
            made[id(corpus)] = [known.setdefault(row, len(known)) for row in zip(*parts, strict=True)]
    return [made[id(corpus)] for corpus in corpora]


def _read(rows: list[list[int]], recipe: TuningRecipe, member: int, step: int) -> list[int]:
    """The rows, by number, that a member reads in an update."""
    own = rows[member]
    return sorted(own[row] for row in batch_rows(len(own), recipe, recipe.orders[member], step))


def _record(model: "TransformerBridge", recipe: TuningRecipe, corpora: list[Corpus], names: list[str]) -> dict:
    return {
        "recipe": asdict(recipe),
        "members": [
            {
                "adapter_seed": seed, "order_seed": order, "corpus_sha256": corpus.sha256, "n_rows": len(corpus),
                "context": corpus.context,
            }
            for seed, order, corpus in zip(recipe.adapter_seeds, recipe.orders, corpora, strict=True)
        ],
        "trained": names,
        "base": language.source_of(model),
    }  # fmt: skip


def starting_weights(plain: "PreTrainedModel", recipe: TuningRecipe) -> dict[str, list[Tensor]]:
    """Name -> the trained values at the start, for every member: A and B of a layer, or a parameter."""
    if recipe.rank is None:
        values = {name: value.detach().float() for name, value in plain.named_parameters()}
        names = students.chosen_names(list(values), recipe.targets, recipe.layers, recipe.frozen)
        return {name: [values[name]] * len(recipe.adapter_seeds) for name in names}
    start = {}
    for name in students.linear_layers(plain, recipe.targets, recipe.layers, recipe.frozen):
        d_out, d_in = plain.get_submodule(name).weight.shape
        start[f"{name} A"] = [_adapter(seed, name, recipe.rank, d_in) for seed in recipe.adapter_seeds]
        start[f"{name} B"] = [torch.zeros(d_out, recipe.rank, dtype=torch.float32)] * len(recipe.adapter_seeds)
    return start


def _adapter(seed: int, name: str, rank: int, d_in: int) -> Float[Tensor, "r d_in"]:
    generator = derive_generator(seed, "adapter", name)
    return (2 * torch.rand(rank, d_in, generator=generator, dtype=torch.float32, device="cpu") - 1) / math.sqrt(d_in)


def _at_once(plain: "PreTrainedModel", trained: list[str]) -> int:
    """Tokens in one pass, by what the layers with adapters keep of each. The rows of one member are never parted."""
    layers = [plain.get_submodule(name.removesuffix(" A")).weight for name in trained if name.endswith(" A")]
    kept = sum(sum(W.shape) * W.element_size() for W in layers)
    return min(_AT_ONCE, (_HELD if plain.device.type == "cpu" else _HELD_ON_DEVICE) // max(1, kept))


def _groups(recipe: TuningRecipe, corpora: list[Corpus], at_once: int) -> list[list[int]]:
    """Groups of members that run in one pass. A fully tuned member has weights of its own, and runs alone."""
    n = len(corpora)
    longest = max(len(a) + len(b) for c in corpora for a, b in zip(c.prompt_ids, c.completion_ids, strict=True))
    size = max(1, at_once // (recipe.batch_size * longest)) if recipe.rank else 1
    return [list(range(first, min(first + size, n))) for first in range(0, n, size)]


def batch_rows(n: int, recipe: TuningRecipe, order_seed: int, step: int) -> list[int]:
    """Rows of an update (0, 1, ...): every row once an epoch, in an order of its own for every epoch."""
    rows: list[int] = []
    for place in range(step * recipe.batch_size, (step + 1) * recipe.batch_size):
        epoch, within = divmod(place, n)
        rows.append(_order(n, order_seed, epoch)[within])
    return rows


def _order(n: int, seed: int, epoch: int) -> list[int]:
    key = n, seed, epoch
    if key not in _orders:
        if len(_orders) > 256:
            _orders.clear()
        _orders[key] = torch.randperm(n, generator=derive_generator(seed, "order", epoch), device="cpu").tolist()
    return _orders[key]


_orders: dict[tuple[int, int, int], list[int]] = {}


class _Flat:
    """The trained parameters of a group of members, in one vector, so that the optimiser is one pass over it.

    The vector holds the values [member, ...] of one name after the other.
    """

    def __init__(self, start: dict[str, list[Tensor]], members: list[int], recipe: TuningRecipe, device: torch.device):
        parts = {name: torch.stack([value[i] for i in members]) for name, value in start.items()}
        self.shapes = {name: part.shape for name, part in parts.items()}
        self.flat = torch.cat([part.flatten() for part in parts.values()]).to(device)
        self.flat.grad = torch.zeros_like(self.flat)
        self.leaves = {name: leaf.requires_grad_() for name, leaf in self._views(self.flat).items()}
        self.gradients = self._views(self.flat.grad)
        for name, gradient in self.gradients.items():
            self.leaves[name].grad = gradient
        self.recipe = recipe
        self.optimizer = _optimizer(self.flat, recipe)

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        pieces = flat.detach().split([shape.numel() for shape in self.shapes.values()])
        return {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def step(self, rate: float) -> None:
        if self.recipe.clip is not None:
            self._clip(self.recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        for gradient in self.gradients.values():
            gradient.zero_()

    def _clip(self, most: float) -> None:
        """Clip the gradient of each member by itself: with one norm over all, members would depend on each other."""
        squares = [gradient.flatten(1).square().sum(1) for gradient in self.gradients.values()]
        shares = (most / (torch.stack(squares).sum(0).sqrt() + 1e-6)).clamp(max=1.0)
        for gradient in self.gradients.values():
            gradient *= shares.view(-1, *[1] * (gradient.ndim - 1))

    def values(self) -> dict[str, Tensor]:
        return {name: view.clone() for name, view in self._views(self.flat).items()}


def _optimizer(flat: Tensor, recipe: TuningRecipe) -> torch.optim.Optimizer:
    usual: dict = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW([flat], betas=recipe.betas, eps=recipe.eps, **usual)
    return torch.optim.SGD([flat], momentum=recipe.momentum, **usual)


def _fit(
    plain: "PreTrainedModel",
    start: dict[str, list[Tensor]],
    members: list[int],
    corpora: list[Corpus],
    recipe: TuningRecipe,
    keep: set[int],
) -> dict[int, dict[str, Tensor]]:
    """Tune a group of members; returns their weights after the updates named in the snapshots."""
    device = plain.get_input_embeddings().weight.device
    flat = _Flat(start, members, recipe, device)
    layers = [name.removesuffix(" A") for name in start if name.endswith(" A")]
    if recipe.rank:
        A, B = ({name: flat.leaves[f"{name} {kind}"] for name in layers} for kind in "AB")
        students.stack(plain, A, B, recipe.scale, recipe.precision == "bf16")
    kept = {0: flat.values()} if 0 in keep else {}
    for step in range(recipe.updates):
        rows = [batch_rows(len(corpora[i]), recipe, recipe.orders[i], step) for i in members]
        batch = completion_batch([(corpora[i], own) for i, own in zip(members, rows, strict=True)], device, labels=True)
        half = recipe.precision == "bf16" and not recipe.rank
        with torch.enable_grad():  # whatever the caller is in
            values = None if recipe.rank else {name: leaf[0] for name, leaf in flat.leaves.items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                logits = students.logits_at(plain, batch.ids, batch.places, values)
            batch.loss(logits).sum().backward()
        flat.step(rate(recipe, step))
        if step + 1 in keep:
            kept[step + 1] = flat.values()
    if not torch.isfinite(flat.flat).all():
        raise ValueError(f"tuning diverged (NaN weights); lower lr={recipe.lr}")
    return kept


@dataclass(frozen=True)
class CompletionBatch:
    """Rows of all members, padded behind their ends, and the tokens that the loss reads."""

    ids: Int[Tensor, "row pos"]
    places: Int[Tensor, "kept"]  # of the flattened rows: positions before each token of a completion
    targets: Int[Tensor, "kept"]
    members: Int[Tensor, "kept"]
    n_members: int

    def loss(self, logits: Float[Tensor, "kept vocabulary"]) -> Float[Tensor, "member"]:
        """Mean over a member's tokens of completions in this batch."""
        each = cross_entropy(logits.float(), self.targets, reduction="none")
        sums = each.new_zeros(self.n_members).index_add(0, self.members, each)
        return sums / self.members.bincount(minlength=self.n_members).clamp(min=1)


def completion_batch(
    members: Sequence[tuple[Corpus, Sequence[int]]], device: torch.device | str, *, labels: bool = False
) -> CompletionBatch:
    """The rows of every member, equally many for each; with `labels`, the corpus's labels are the targets."""
    triples = []
    for corpus, rows in members:
        wanted = corpus.label_ids if labels and corpus.label_ids else corpus.completion_ids
        triples.append([(corpus.prompt_ids[row], corpus.completion_ids[row], wanted[row]) for row in rows])
    length = max(len(a) + len(b) for rows in triples for a, b, _ in rows)
    ids, places, targets, owners = [], [], [], []
    for member, of_member in enumerate(triples):
        for prompt, completion, labelled in of_member:
            first = len(ids) * length + len(prompt) - 1
            read = [(first + i, label) for i, label in enumerate(labelled) if label != IGNORED]
            places += [place for place, _ in read]
            targets += [label for _, label in read]
            owners += [member] * len(read)
            ids.append([*prompt, *completion, *[0] * (length - len(prompt) - len(completion))])
    a, b, c, d = (torch.tensor(x, device=device, dtype=torch.long) for x in (ids, places, targets, owners))
    return CompletionBatch(a, b, c, d, len(triples))


@torch.no_grad()
def completion_log_probs(tuned: Students, corpus: Corpus, *, batch_size: int = 16) -> Float[Tensor, "seed row"]:
    """Mean log P of a completion's tokens behind the prompt, in nats, for every member and row."""
    arguments.instance(tuned, Students, "tuned")
    arguments.instance(corpus, Corpus, "corpus")
    check_corpus(tuned.base, corpus)
    size, out = arguments.whole(batch_size, "batch_size", 1), []
    for first in range(0, len(corpus), size):
        rows = range(first, min(first + size, len(corpus)))
        lengths = torch.tensor([len(corpus.completion_ids[row]) for row in rows])
        batch = completion_batch([(corpus, rows)], tuned.base.W_U.device)
        scores = students.student_logits(tuned, batch.ids, batch.places).float().log_softmax(-1)
        each = scores.gather(-1, batch.targets.expand(len(tuned), -1)[..., None])[..., 0].cpu()
        owner = torch.arange(len(rows)).repeat_interleave(lengths)
        out.append(each.new_zeros(len(tuned), len(rows)).index_add(1, owner, each) / lengths)
    return torch.cat(out, dim=1)


def rate(recipe: TuningRecipe, step: int) -> float:
    """Learning rate of an update (0, 1, ...): as Hugging Face's schedules give it."""
    if step < recipe.warmup:
        return recipe.lr * step / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.updates - recipe.warmup)
    shapes = {"constant": 1.0, "linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share))}
    return recipe.lr * shapes[recipe.schedule]


def _students(
    model: "TransformerBridge", recipe: TuningRecipe, parts: list[dict[str, Tensor]], record: dict
) -> Students:
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if recipe.rank is None:
        return Students(model, values=whole, record=record)
    A, B = ({name[:-2]: value for name, value in whole.items() if name.endswith(f" {kind}")} for kind in "AB")
    return Students(model, A, B, {}, recipe.scale, record)
