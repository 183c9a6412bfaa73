"""Log-probabilities of many continuations of many prompts, and their interaction, without main effects.

The papers report the ratio P(animal | "you love 087") / P(animal | no such prompt). Most of its variance is the effect
of any number on that animal. The rest is the interaction of the log-probability matrix: its double-centred part, which
still holds slopes and the common effects of similar numbers (`measures.interaction_parts`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechsub import arguments, stats
from mechsub.inputs.continuations import continuations
from mechsub.inputs.prompts import check_strings
from mechsub.inputs.token_ids import Outputs, check_length, check_prompts
from mechsub.machine import devices, memory
from mechsub.models import checks
from mechsub.models.hooked import LAST_ONLY, check_hooks
from mechsub.threads import one_thread

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_ROUNDING = 1e-14  # of the largest value: what fp64 leaves where the difference is 0
_STEPS = 2  # of the precision of narrower types: the most that rounding every value to its type can leave
_SHARE = 0.8  # of the free memory that a batch may take
_NODES = 256  # inner nodes of a trie that run beside a prompt at a time


@torch.no_grad()
def next_token_log_probs(
    model: "TransformerBridge",
    prompts: Sequence[Int[Tensor, "_"]],
    *,
    tokens: Outputs | None = None,
    batch_size: int = 16,
) -> Float[Tensor, "prompt token"]:
    """log P(token | prompt) in nats, fp32, normalised over the whole vocabulary; `tokens` keeps only these columns.

    Prompts run in batches of equal length, so there is no padding and the result does not depend on the batch beyond
    rounding; only the last position is unembedded. Raises for anything but a list of prompts, for padded prompts, and
    for a model in train mode.
    """
    prompts = checked_prompts(model, prompts, batch_size)
    tokens = None if tokens is None else arguments.outputs(model, tokens)
    out = None
    for rows, batch in equal_lengths(prompts, fitting(model, prompts, 0, batch_size)):
        logits = model.run_with_hooks(batch.to(_device(model)), fwd_hooks=[LAST_ONLY])[:, -1].float()
        chosen = logits if tokens is None else logits[:, tokens]
        values = (chosen - logits.logsumexp(-1, keepdim=True)).cpu()
        out = values.new_empty(len(prompts), values.shape[-1]) if out is None else out
        out[rows] = values
    assert out is not None  # there is a prompt
    return out


@torch.no_grad()
def string_log_probs(
    model: "TransformerBridge", prompts: Sequence[Int[Tensor, "_"]], strings: Sequence[str], *, batch_size: int = 8
) -> Float[Tensor, "prompt string"]:
    """log P(string | prompt) in nats: the sum over the string's tokens, each given the prompt and the tokens before.

    A string has any number of tokens ("087": one on Llama-3, three on SmolLM2), the tokens that the tokenizer makes of
    it behind the prompt (`continuations`). A string that cannot be cut there is refused. The strings form a trie, which
    runs beside the prompt in one pass: every inner node is one position that attends to the prompt and to its
    ancestors. So a prompt and a common prefix are computed once (1,110 numbers of split digits cost 111 positions, not
    1,110 runs).

    A trial run, with a prompt of the same length, shows whether the trie gives the same numbers as each string alone.
    Where it does not (a prompt longer than the attention's window, ALiBi, a model that takes no mask), strings run one
    by one: slower, with a warning. Raises where W_U, with the model's cap and scale, does not give its logits.
    """
    prompts = checked_prompts(model, prompts, batch_size)
    strings = check_strings(model.tokenizer, arguments.texts(strings, "strings"))
    readout = checks.readout(model)
    out = torch.empty(len(prompts), len(strings), dtype=torch.float32)
    for numbers, ids in continuations(model.tokenizer, prompts, strings):
        _check_ids(model, strings, ids)
        places, alike = torch.tensor(numbers), [prompts[i] for i in numbers]
        for trie in build_tries(ids):
            columns = torch.tensor(trie.strings)
            for rows, states in _states(model, alike, trie, batch_size):
                out[places[rows][:, None], columns] = _path_sums(_edge_log_probs(readout, states, trie), trie).cpu()
    return out


@torch.no_grad()
def string_states(
    model: "TransformerBridge",
    prompts: Sequence[Int[Tensor, "_"]],
    trie: "Trie",
    *,
    name: str = "unembed.hook_in",
    batch_size: int = 8,
) -> Float[Tensor, "prompt node d"]:
    """The activation `name` at the end of every prompt (node 0) and at every inner node of the trie, fp32.

    Raises for a hook without a position of its own, as attention patterns are, and for the logits, of which the last
    position's alone are computed: `unembed` gives them from unembed.hook_in.
    """
    prompts = checked_prompts(model, prompts, batch_size)
    check_hooks(model, [arguments.text(name, "name")])
    if name == "unembed.hook_out":
        raise ValueError('name must not be "unembed.hook_out": ask for "unembed.hook_in", and call unembed')
    arguments.ids(arguments.instance(trie, Trie, "trie").tokens[1:], arguments.embedding(model), "trie.tokens", 0)
    out = None
    for rows, states in _states(model, prompts, trie, batch_size, name):
        out = torch.empty(len(prompts), *states.shape[1:], dtype=torch.float32) if out is None else out
        out[rows] = states.float().cpu()
    assert out is not None  # there is a prompt
    return out


@dataclass(frozen=True)
class Trie:
    """Prefixes shared by strings of tokens. Node 0 is the prompt's end, parents come before their children.

    An edge is (node, next token); a string is the list of its edges, so its log-probability is a sum over them.
    """

    tokens: tuple[int, ...]  # of every node; that of node 0 is not used
    parents: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    paths: tuple[tuple[int, ...], ...]  # edges of every string
    strings: tuple[int, ...]  # their places in the list that was given

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        printer.text(f"Trie({len(self.strings)} strings, {len(self.tokens)} nodes, {len(self.edges)} edges)")

    @property
    def depths(self) -> list[int]:
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return depths

    def path_to(self, node: int) -> list[int]:
        """Nodes from the prompt's end to this node."""
        path = [node]
        while path[0]:
            path.insert(0, self.parents[path[0]])
        return path

    @property
    def sees(self) -> Bool[Tensor, "node node"]:
        """Row i: the nodes that node i attends to, itself and its ancestors; node 0 stands for the prompt."""
        sees = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents[1:], start=1):
            sees[node] |= sees[parent]
        return sees


def build_tries(strings: Sequence[tuple[int, ...]], max_nodes: int = _NODES) -> list[Trie]:
    """The fewest tries that hold all strings, with at most `max_nodes` inner nodes each (or those of one string)."""
    max_nodes = arguments.whole(max_nodes, "max_nodes", 1)
    strings = [
        tuple(arguments.ids(string, 2**31, f"strings[{i}]"))
        for i, string in enumerate(arguments.items(strings, "strings", "strings of token ids"))
    ]
    order = sorted(range(len(strings)), key=lambda i: strings[i])
    groups: list[list[int]] = []
    prefixes: set[tuple[int, ...]] = set()
    for i in order:
        own = {strings[i][:length] for length in range(len(strings[i]))}
        if not groups or len(prefixes | own) > max_nodes:
            groups, prefixes = [*groups, []], set()
        groups[-1].append(i)
        prefixes |= own
    return [_trie(strings, group) for group in groups]


def _trie(strings: Sequence[tuple[int, ...]], members: list[int]) -> Trie:
    nodes: dict[tuple[int, ...], int] = {(): 0}
    edges: dict[tuple[int, int], int] = {}
    tokens, parents, paths = [-1], [-1], []
    for i in members:
        path = []
        for length, token in enumerate(strings[i]):
            prefix = strings[i][:length]
            if prefix not in nodes:
                nodes[prefix] = len(nodes)
                tokens.append(prefix[-1])
                parents.append(nodes[prefix[:-1]])
            path.append(edges.setdefault((nodes[prefix], token), len(edges)))
        paths.append(tuple(path))
    return Trie(tuple(tokens), tuple(parents), tuple(edges), tuple(paths), tuple(members))


@torch.no_grad()
def _states(
    model: "TransformerBridge", prompts: Sequence[Tensor], trie: Trie, batch_size: int, name: str = "unembed.hook_in"
) -> Iterator[tuple[Tensor, Float[Tensor, "prompt node d"]]]:
    """Rows of prompts, and the activation at the prompts' end and at every inner node."""
    branches = checks.Branches(torch.tensor(trie.tokens[1:]).long(), trie.sees[1:, 1:], torch.tensor(trie.depths[1:]))
    check_length(model, max(map(len, prompts)) + max(trie.depths), "a prompt with a string behind it")
    for rows, batch in equal_lengths(prompts, fitting(model, prompts, len(trie.tokens) - 1, batch_size)):
        if checks.holds_beside(model, batch.shape[1], branches):
            yield rows, _beside(model, batch, branches, name)
        else:
            checks.warn_once(model, ONE_BY_ONE)
            yield rows, _one_by_one(model, batch, trie, name)


ONE_BY_ONE = (
    "this model does not give a string's own log-probabilities beside others (an attention window, ALiBi, or a mask or "
    "positions that it does not take): strings run one by one, which is slower"
)


def _beside(
    model: "TransformerBridge", batch: Tensor, branches: checks.Branches, name: str
) -> Float[Tensor, "prompt node d"]:
    kept: list[Tensor] = []

    def keep(activation: Tensor, hook) -> None:
        _check_positions(activation, name, batch.shape[1] + len(branches.tokens))
        kept.append(activation[:, -len(branches.tokens) - 1 :].clone())

    checks.run_beside(model, batch, branches, [(name, keep), LAST_ONLY])
    return kept[0]


def _check_positions(activation: Tensor, name: str, length: int) -> None:
    """Raises where the axis after the prompts' is no position, as in attention patterns [batch, head, query, key]."""
    shape = list(activation.shape)
    if len(shape) < 3 or shape[1] != length or shape[2:] == [length, length]:
        raise ValueError(f"hook {name!r} has no position on axis 1 (shape {shape}): it has no state of a node")


def _one_by_one(model: "TransformerBridge", batch: Tensor, trie: Trie, name: str) -> Float[Tensor, "prompt node d"]:
    """As `_states`, from plain runs: of the prompt, and of every path to an inner node without inner nodes below.

    Raises where a state depends on tokens after it: then the score of a string depends on the length of the run.
    """
    found: dict[int, Tensor] = {}
    kept: list[Tensor] = []

    def keep(activation: Tensor, hook) -> None:
        _check_positions(activation, name, tokens.shape[1])
        kept.append(activation[:, batch.shape[1] - 1 :].clone())

    for leaf in sorted({0, *set(range(len(trie.tokens))) - set(trie.parents)}):
        path = trie.path_to(leaf)
        tail = torch.tensor([trie.tokens[node] for node in path[1:]], dtype=batch.dtype)
        tokens = torch.cat([batch, tail.expand(len(batch), -1)], dim=1).to(_device(model))
        model.run_with_hooks(tokens, fwd_hooks=[(name, keep), LAST_ONLY])
        for node, state in zip(path, kept.pop().unbind(1), strict=True):
            if checks.differ(state, found.setdefault(node, state)):
                raise checks.Refused(
                    f"this model's state after {batch.shape[1] + trie.depths[node]} tokens depends on those after it "
                    "(it is not causal, or scales positions by length): a string has no log-probability of its own"
                )
    return torch.stack([found[node] for node in range(len(trie.tokens))], dim=1)


def _edge_log_probs(
    readout: checks.Readout, states: Float[Tensor, "prompt node d_model"], trie: Trie
) -> Float[Tensor, "prompt edge"]:
    """log P(token | node) of every edge."""
    logits = readout(states).float()
    nodes, tokens = (torch.tensor(side, device=logits.device) for side in zip(*trie.edges, strict=True))
    return logits[:, nodes, tokens] - logits.logsumexp(-1)[:, nodes]


def _path_sums(edge_values: Float[Tensor, "*lead edge"], trie: Trie) -> Float[Tensor, "*lead string"]:
    """The sum of the edges' values over each string."""
    longest = max(map(len, trie.paths))
    padded = torch.nn.functional.pad(edge_values, (0, 1))  # the last, zero, edge fills shorter paths
    index = torch.tensor([[*path, *[-1] * (longest - len(path))] for path in trie.paths], device=edge_values.device)
    return padded[..., index].sum(-1)


def fitting(model: "TransformerBridge", prompts: Sequence[Tensor], n_nodes: int, batch_size: int) -> int:
    """The number of prompts, at most batch_size, that the free memory of the model's device holds at a time, with so
    many
    nodes beside each. Raises where not even one fits."""
    cfg, device = model.cfg, _device(model)
    length = max(map(len, prompts)) + n_nodes
    width = max(cfg.d_model, getattr(cfg, "d_mlp", None) or 0)
    logits = 4 * 3 * (1 + n_nodes) * arguments.vocabulary(model)  # themselves, in fp32, and what logsumexp makes
    needed = logits + length * (8 * width + 2 * length * (getattr(cfg, "n_heads", None) or 1)) * model.W_U.itemsize
    free = int(_SHARE * devices.free_bytes(device))
    if needed > free:
        raise ValueError(
            f"{memory.gib(needed)} are needed on {device} for one prompt of {length} positions, and {memory.gib(free)} "
            "are free; use shorter prompts, or fewer strings"
        )
    return min(arguments.whole(batch_size, "batch_size", 1), free // needed)


def equal_lengths(prompts: Sequence[Tensor], batch_size: int) -> Iterator[tuple[Tensor, Int[Tensor, "prompt pos"]]]:
    """(row numbers, prompts) in batches of one length, in the order of the prompts within a length."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    for length in lengths.unique().tolist():
        for rows in (lengths == length).nonzero()[:, 0].split(int(batch_size)):
            yield rows, torch.stack([prompts[i] for i in rows.tolist()])


def _check_ids(model: "TransformerBridge", strings: Sequence[str], ids: Sequence[tuple[int, ...]]) -> None:
    """Raise for a tokenizer with token ids beyond the model's outputs or inputs."""
    outputs, inputs = arguments.vocabulary(model), arguments.embedding(model)
    for string, tokens in zip(strings, ids, strict=True):
        if max(tokens) >= outputs or max(tokens[:-1], default=0) >= inputs:
            raise ValueError(
                f"strings hold {string[:60]!r}, which this tokenizer reads as {list(tokens)[:8]}, and the model has "
                f"{outputs} outputs and takes {inputs} token ids; give it its own tokenizer (model.tokenizer)"
            )


def checked_prompts(model: "TransformerBridge", prompts: Sequence[Tensor], batch_size: int) -> list[Tensor]:
    """The prompts as a list; raises for arguments with which no run makes sense."""
    batch_size = arguments.whole(batch_size, "batch_size", 1)
    return check_prompts(arguments.model(model), prompts)


def _device(model: "TransformerBridge") -> torch.device:
    return model.W_U.device


# What is left of a matrix of log-probabilities.


@one_thread()
def interaction(scores: Float[Tensor, "*lead row column"]) -> Float[Tensor, "*lead row column"]:
    """Double-centred scores: S - row means - column means + mean, in fp64. Zero for any sum of main effects."""
    s = arguments.tensor(scores, "scores", "*lead row column").double()
    left = s - s.mean(-1, keepdim=True) - s.mean(-2, keepdim=True) + s.mean((-2, -1), keepdim=True)
    # What the rounding of a sum of main effects leaves would correlate with anything.
    size, whole = (x.abs().amax((-2, -1), keepdim=True) for x in (left, s))
    return torch.where(size <= _rounding(scores) * whole, 0.0, left)


def _rounding(scores: Tensor) -> float:
    """What rounding leaves where a difference is 0, of the largest value."""
    narrow = scores.is_floating_point() and scores.dtype != torch.float64
    return _STEPS * torch.finfo(scores.dtype).eps if narrow else _ROUNDING


@one_thread()
def variance_shares(scores: Float[Tensor, "..."], axes: Sequence[str]) -> dict[str, float]:
    """Shares of the total variance of a fully crossed table: every main effect and every interaction of its axes.

    This is the orthogonal (ANOVA) decomposition of the sum of squares, fp64; keys join axis names by " x ". Shares sum
    to 1. They are descriptive: the highest interaction also holds the noise of the table. Raises for a constant table.
    """
    axes = arguments.distinct(arguments.texts(axes, "axes"), "axes")
    s = arguments.values(scores, "scores", "*axis").double()
    if s.ndim != len(axes):
        raise ValueError(f"axes must name the {s.ndim} axes of scores, not {len(axes)}")
    total = float(((s - s.mean()) ** 2).mean())
    if total <= (_rounding(scores) * float(s.abs().max())) ** 2:
        raise ValueError("all scores are equal; they have no variance to share")
    shares: dict[str, float] = {}
    effects: dict[tuple[int, ...], Tensor] = {(): s.mean()}
    for subset in sorted(_subsets(len(axes)), key=len):
        others = [axis for axis in range(len(axes)) if axis not in subset]
        effect = s.mean(others, keepdim=True) if others else s
        for smaller, value in effects.items():
            if set(smaller) < set(subset):
                effect = effect - value
        effects[subset] = effect
        if subset:
            shares[" x ".join(axes[axis] for axis in subset)] = float((effect**2).mean()) / total
    return shares


def _subsets(n: int) -> list[tuple[int, ...]]:
    return [tuple(axis for axis in range(n) if code >> axis & 1) for code in range(2**n)]


@one_thread()
def matrix_correlation(a: Float[Tensor, "row column"], b: Float[Tensor, "row column"]) -> float:
    """Pearson correlation of two matrices over all their entries; raises where one is constant."""
    _check_matrices(a, b)  # and NaN below, where it costs nothing: a test calls this a thousand times
    x, y = (m.double().flatten() - m.double().mean() for m in (a, b))
    scale = float(x.norm() * y.norm())
    if not math.isfinite(scale):
        raise ValueError("a or b holds NaN or infinite values; give finite ones")
    if any(float(left.norm()) <= _rounding(m) * float(m.double().norm()) for left, m in ((x, a), (y, b))):
        raise ValueError("a or b is constant; the correlation of such a matrix is not defined")
    return float(x @ y) / scale


def _check_matrices(a: Tensor, b: Tensor) -> None:
    for name, side in (("a", a), ("b", b)):
        arguments.tensor(side, name, "row column")
    arguments.same_shape(a=a, b=b)


@one_thread()
def permutation_p(
    a: Float[Tensor, "row column"],
    b: Float[Tensor, "row column"],
    *,
    n: int = 999,
    seed: int = 0,
    strata: Sequence | None = None,
    move_columns: bool = True,
    statistic: Callable[[Tensor, Tensor], float] = matrix_correlation,
) -> tuple[float, list[float]]:
    """One-sided p of `statistic` when rows and columns of b are shuffled (two-way), and the null values.

    Entries of a row or column are not exchangeable one by one, so whole rows and whole columns move. `strata` names a
    stratum for every row (such as the number of digits), and rows move within it. With move_columns=False only rows
    move. This keeps the common pattern of a stratum's rows (such as how animals react to longer numbers). Where the two
    matrices share such a pattern, it is the stricter null and the only valid one, because shuffled columns break the
    pattern too. p = (1 + #{null >= seen}) / (1 + n); values that differ by rounding are equal (`stats.permutation_p`).
    """
    _check_matrices(a, b)
    arguments.finite(a, "a")
    arguments.finite(b, "b")
    n = arguments.whole(n, "n", 1)
    arguments.flag(move_columns, "move_columns")
    arguments.function(statistic, "statistic")
    generator = np.random.default_rng(arguments.seed(seed))
    rows = np.zeros(len(b)) if strata is None else arguments.labels(strata, "strata", len(b))
    seen, null = float(statistic(a, b)), []
    for _ in range(n):
        # A stable sort of strata whose members were shuffled: rows land on places of their own stratum.
        shuffled = generator.permutation(len(b))
        order = np.empty(len(b), dtype=np.int64)
        order[np.argsort(rows, kind="stable")] = shuffled[np.argsort(rows[shuffled], kind="stable")]
        moved = b[torch.from_numpy(order)]
        if move_columns:
            moved = moved[:, torch.from_numpy(generator.permutation(b.shape[1]))]
        null.append(statistic(a, moved))
    scale = 1.0 if statistic is matrix_correlation else 0.0
    return stats.permutation_p(seen, null, scale=scale), null


@one_thread()
def crossed_bootstrap(
    statistic: Callable[[Tensor, Tensor], float], n_rows: int, n_columns: int, *, n: int = 999, seed: int = 0
) -> tuple[float, float]:
    """95% percentile interval of statistic(row numbers, column numbers) under resampling of rows and of columns.

    Rows and columns are both random factors (numbers and animals), so both are drawn with replacement, independently
    (the pigeonhole bootstrap, Owen 2007: conservative for crossed random effects). Raises for fewer than 100 resamples,
    and where the statistic is NaN in one.
    """
    arguments.function(statistic, "statistic")
    n_rows, n_columns = arguments.whole(n_rows, "n_rows", 2), arguments.whole(n_columns, "n_columns", 2)
    n = arguments.whole(n, "n", stats.LEAST_RESAMPLES)
    generator = np.random.default_rng(arguments.seed(seed))
    values = [
        statistic(
            torch.from_numpy(generator.integers(n_rows, size=n_rows)),
            torch.from_numpy(generator.integers(n_columns, size=n_columns)),
        )
        for _ in range(n)
    ]
    if undefined := int(np.isnan(values).sum()):
        raise ValueError(f"statistic is NaN in {undefined} of {n} resamples: it has no interval")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def best_of_null(effects: Float[Tensor, "number"], k: int, *, n: int = 10_000, seed: int = 0) -> Float[Tensor, "draw"]:
    """The largest effect among k numbers drawn at random without replacement, n times: the null of a best of k."""
    arguments.values(effects, "effects", "number")
    k = arguments.whole(k, "k", 1, len(effects))
    n = arguments.whole(n, "n", 1)
    generator = torch.Generator().manual_seed(arguments.seed(seed))
    draws = torch.rand(n, len(effects), generator=generator, dtype=torch.float32, device="cpu").topk(k, dim=-1).indices
    return effects[draws].amax(-1)
