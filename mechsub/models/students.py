"""Students of one language model: stacked low-rank adapters over its frozen weights, or whole weights, by member.

Adapters are `A` [seed, r, d_in] and `B` [seed, d_out, r] of each linear layer; a member's weights are W + scale B A.
All members run in one pass of the base: its products see their rows as one batch, the members' are batched products.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor, nn

from mechsub import arguments, files, sources
from mechsub.inputs.token_ids import Outputs, check_prompts
from mechsub.models import adapters, checks, language, weights
from mechsub.models.hooked import check_unhooked

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel

BLOCK = re.compile(r".*?\.(?:layers|h|blocks)\.([0-9]+)\.")  # of Hugging Face's names of parameters
_PEFT = "base_model.model."


def plain_model(model: "TransformerBridge") -> "PreTrainedModel":
    """Hugging Face's own model over the weights of a bridge, which both share; for training and drawing.

    Attention is torch's fused attention where the model has it and gives the same logits (Falcon's positions by alibi
    do not). Rows are padded only behind their end, so causal attention needs no mask. Raises for hooks on the bridge,
    which this model does not have, and where it does not give the bridge's own logits of a few tokens: parts of a
    weight that were changed in the bridge alone.
    """
    for attention in ("sdpa", "eager"):
        plain = _plain(model, attention)
        if (error := checks.unlike(model, plain)) is None:
            return plain
    raise ValueError(
        f"Hugging Face's model over these weights does not give the logits of the bridge ({error}), so it can neither "
        "be tuned nor drawn from; take off edits of the bridge, or use another model"
    )


def _plain(model: "TransformerBridge", attention: str) -> "PreTrainedModel":
    wrapped = getattr(arguments.model(model), "original_model", None)
    if wrapped is None:
        arguments.refuse("model", "a language model, as load_language_model gives it", model)
    check_unhooked(model, "the model")
    config = copy.deepcopy(wrapped.config)
    config.output_attentions = False  # bridges ask for it; Falcon then makes a mask that its fused attention ignores
    config._attn_implementation = attention if getattr(type(wrapped), "_supports_sdpa", False) else "eager"
    with torch.device("meta"):
        plain = type(wrapped)(config)
    values = {name.replace("._original_component", ""): value for name, value in wrapped.state_dict().items()}
    lacking = sorted(set(plain.state_dict()) - set(values))
    if lacking:
        raise ValueError(f"this model's weights cannot be found in its bridge ({lacking[0]}); it cannot be tuned")
    plain.load_state_dict({name: values[name].detach() for name in plain.state_dict()}, assign=True)
    _copy_buffers(wrapped, plain)
    plain.tie_weights()
    return plain.eval().requires_grad_(False)


def _copy_buffers(wrapped: "PreTrainedModel", plain: "PreTrainedModel") -> None:
    """Copy buffers that are in no state dict, such as the frequencies of rotary positions."""
    own = {name.replace("._original_component", ""): value for name, value in wrapped.named_buffers()}
    for name, value in plain.named_buffers():
        if value.is_meta:
            if name not in own:
                raise ValueError(f"this model's buffers cannot be found in its bridge ({name}); it cannot be tuned")
            where, _, last = name.rpartition(".")
            setattr(plain.get_submodule(where), last, own[name])


@dataclass(frozen=True)
class Students:
    """Members tuned from one model. Low rank: name of a linear layer -> A and B; else name of a parameter -> values.

    `record`: recipe, corpora and base of the tuning, for provenance.
    """

    base: "TransformerBridge" = field(repr=False)
    A: Mapping[str, Float[Tensor, "seed r d_in"]] = field(default_factory=dict, repr=False)
    B: Mapping[str, Float[Tensor, "seed d_out r"]] = field(default_factory=dict, repr=False)
    values: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    scale: float = 1.0
    record: Mapping[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of members."""
        return len(next(iter((self.A or self.values).values())))

    def select(self, members: Sequence[int]) -> "Students":
        """Some of the members, each at most once, in the order given."""
        rows = arguments.distinct(arguments.ids(members, len(self), "members"), "members")
        A, B, values = ({name: v[rows] for name, v in part.items()} for part in (self.A, self.B, self.values))
        return Students(self.base, A, B, values, self.scale, _record_of(self.record, rows))

    @torch.no_grad()
    def update(self, name: str) -> Float[Tensor, "seed *weight"]:
        """The change of a weight by tuning, for every member; `names` lists the weights, [d_out, d_in] or [d]."""
        arguments.choice(name, "name", self.names)
        if self.A:
            layer = name.removesuffix(".weight")
            return self.scale * self.B[layer] @ self.A[layer]
        return self.values[name] - dict(plain_model(self.base).named_parameters())[name]

    @property
    def names(self) -> list[str]:
        """Parameters that differ from the base's, by Hugging Face's names."""
        return [f"{layer}.weight" for layer in self.A] or list(self.values)


def _record_of(record: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The record of some members."""
    own = dict(record)
    if "members" in own:
        own["members"] = [own["members"][i] for i in rows]
    if "adapters" in own:
        sums = list(own["adapters"].items())
        own["adapters"] = dict(sums[i] for i in rows)
    return own


def merged(students: Students, member: int) -> "TransformerBridge":
    """One member as a bridge of its own; every measure takes it as it takes the base."""
    arguments.instance(students, Students, "students")
    i = arguments.whole(member, "member", 0, len(students) - 1)
    model, one = copy.deepcopy(students.base), students.select([i])
    plain = _plain(model, "eager")  # over the weights of the copy
    parameters = dict(plain.named_parameters())
    with torch.no_grad():
        for name in students.names:
            if students.A:
                _check_untied(plain, name, "a student")
            value = parameters[name]
            value.copy_(value + one.update(name)[0].to(value) if students.A else one.values[name][0])
    if checks.unlike(model, plain):  # bridges of fused weights (q, k and v in one) run copies of their parts
        model = language.bridge_over(plain, students.base)
        plain_model(model)
    source = language.source_of(students.base)
    tuned = [tensor.numpy(force=True).tobytes() for part in (one.A, one.B, one.values) for tensor in part.values()]
    source["tuned_sha256"] = files.sha256(b"".join(tuned))
    model.mechsub_source = source
    language.remember_weights(model)
    return model


# The stacked pass.


class _LowRank(torch.autograd.Function):
    """x W^T + b + scale (x A^T) B^T, rows of x grouped by members; saves x and x A^T alone."""

    @staticmethod
    def forward(ctx, x, W, bias, A, B, scale, half):
        rows = x.reshape(len(A), -1, x.shape[-1])
        low = torch.bmm(rows, A.mT)
        y = _product(x, W.mT, half)
        if bias is not None:
            y += bias
        y.view(len(A), -1, y.shape[-1]).baddbmm_(low, B.mT, alpha=scale)
        ctx.save_for_backward(rows, low, W, A, B)
        ctx.scale, ctx.half = scale, half
        return y

    @staticmethod
    def backward(ctx, dy):
        rows, low, W, A, B = ctx.saved_tensors
        flat = dy.reshape(len(A), -1, dy.shape[-1])
        inner = torch.bmm(flat, B).mul_(ctx.scale)
        dA, dB = torch.bmm(inner.mT, rows), torch.bmm(flat.mT, low).mul_(ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = _product(dy, W, ctx.half)
            dx.view(len(A), -1, dx.shape[-1]).baddbmm_(inner, A)
        return dx, None, None, dA, dB, None, None


def _product(x: Tensor, W: Tensor, half: bool) -> Tensor:
    return (x.bfloat16() @ W.bfloat16()).to(x.dtype) if half else (x @ W).contiguous()


class StackedLinear(nn.Module):
    """A linear layer of the base with every member's adapter."""

    def __init__(self, name: str, layer: nn.Linear, A: Tensor, B: Tensor, scale: float, half: bool):
        super().__init__()
        self.name, self.W, self.bias, self.A, self.B = name, layer.weight, layer.bias, A, B
        self.scale, self.bf16 = scale, half

    @property
    def weight(self) -> "_Weight":
        """Not the weight: who multiplies by it himself (Mamba's dt_proj) would leave the adapters out."""
        return _Weight(self.name, self.W)

    def forward(self, x: Tensor) -> Tensor:
        return _LowRank.apply(x, self.W, self.bias, self.A, self.B, self.scale, self.bf16)


class _Weight:
    """Type, place and shape of a weight that has adapters. Any other use raises."""

    def __init__(self, name: str, W: Tensor):
        self.name, self.dtype, self.device, self.shape = name, W.dtype, W.device, W.shape

    def __getattr__(self, _: str) -> Any:
        last = self.name.rpartition(".")[2]
        raise ValueError(
            f"this model uses the weight of {self.name} without the layer, so an adapter there would have no effect; "
            f"leave it out (frozen=({last!r},))"
        )

    def __matmul__(self, other: object) -> Any:
        return self.__getattr__("__matmul__")

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        next(one for one in args if isinstance(one, cls)).__getattr__("")


def stack(
    plain: "PreTrainedModel", A: Mapping[str, Tensor], B: Mapping[str, Tensor], scale: float, half: bool = False
) -> None:
    """Put adapters into a plain model. From then on its rows belong to the members, in equal groups."""
    for name in A:
        layer, (where, _, last) = plain.get_submodule(name), name.rpartition(".")
        setattr(plain.get_submodule(where), last, StackedLinear(name, layer, A[name], B[name], scale, half))


def linear_layers(
    plain: "PreTrainedModel", targets: Sequence[str] | None, layers: Sequence[int] | None, frozen: Sequence[str]
) -> list[str]:
    """Names of the linear layers of blocks that get adapters."""
    names = [name for name, module in plain.named_modules() if _is_linear(module) and BLOCK.match(f"{name}.")]
    if not names:
        raise ValueError("this model has no nn.Linear in its blocks for adapters; tune it whole (rank=None)")
    return chosen_names(names, targets, layers, frozen)


def _is_linear(module: nn.Module | None) -> bool:
    """Whether it puts out x W^T + b: routers of Llama 4 are nn.Linear too, and put out something else."""
    if not isinstance(module, nn.Linear):
        return False
    if type(module).forward is nn.Linear.forward:
        return True
    x = torch.linspace(-1, 1, module.in_features, dtype=torch.float32).to(module.weight)[None]
    out = module(x)
    expected = nn.functional.linear(x, module.weight, module.bias)
    return isinstance(out, Tensor) and checks.differ(out, expected) is None


def chosen_names(
    names: list[str], targets: Sequence[str] | None, layers: Sequence[int] | None, frozen: Sequence[str]
) -> list[str]:
    """Names of the trained parameters: in these blocks, with a part named in targets and no part named in frozen."""
    blocks = {name: int(found[1]) if (found := BLOCK.match(f"{name}.")) else None for name in names}
    last = max((block for block in blocks.values() if block is not None), default=-1)
    for layer in layers or ():
        if layer not in blocks.values():
            raise ValueError(f"layers must name blocks of this model, 0..{last}, not {layer}")
    for kind, parts in (("targets", targets), ("frozen", frozen)):
        for part in parts or ():
            if not any(_within(name, part) for name in names):
                raise ValueError(f"{kind} names {part!r}, which no parameter has; they are like {names[-1]}")
    left = [
        name
        for name, block in blocks.items()
        if (layers is None or block in layers)
        and (targets is None or any(_within(name, part) for part in targets))
        and not any(_within(name, part) for part in frozen)
    ]
    return left or arguments.refuse("frozen", "less than everything that is trained", list(frozen))


def _within(name: str, part: str) -> bool:
    """Whether a name has these parts in a row: "mlp", "layers.0", "q_proj"."""
    return f".{part}." in f".{name}."


# The pass of all members.


@contextmanager
def only_at(plain: "PreTrainedModel", places: Int[Tensor, "kept"]) -> Iterator[None]:
    """Unembed only these places of the flattened rows; logits are [1, kept, vocabulary]."""

    def keep(module: nn.Module, inputs: tuple) -> tuple:
        return (inputs[0].flatten(0, 1)[places][None],)

    handle = plain.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def logits_at(
    plain: "PreTrainedModel", ids: Int[Tensor, "row pos"], places: Int[Tensor, "kept"], values: Mapping | None = None
) -> Tensor:
    """Logits [kept, vocabulary] at places of the flattened rows; with `values` in place of parameters."""
    with only_at(plain, places):
        if values is None:
            return plain(input_ids=ids, use_cache=False).logits[0]
        return torch.func.functional_call(plain, dict(values), (), {"input_ids": ids, "use_cache": False}).logits[0]


@torch.no_grad()
def student_logits(
    students: Students, ids: Int[Tensor, "row pos"], places: Int[Tensor, "kept"]
) -> Float[Tensor, "seed kept vocabulary"]:
    """Logits of every member at places of the same flattened rows; rows may be padded behind their ends."""
    plain, n = plain_model(students.base), len(students)
    if students.A:
        stack(plain, students.A, students.B, students.scale)
        shift = torch.arange(n, device=ids.device)[:, None] * ids.numel()
        return logits_at(plain, ids.repeat(n, 1), (places + shift).flatten()).unflatten(0, (n, -1))
    members = [{name: value[i] for name, value in students.values.items()} for i in range(n)]
    return torch.stack([logits_at(plain, ids, places, values) for values in members])


def next_log_probs(
    students: Students, prompts: Sequence[Int[Tensor, "_"]], tokens: Outputs, *, batch_size: int = 32
) -> Float[Tensor, "seed prompt token"]:
    """log P(token | prompt) of every member in nats, over the whole vocabulary; prompts may have several lengths."""
    arguments.instance(students, Students, "students")
    rows, device = check_prompts(students.base, prompts), students.base.W_U.device
    chosen = torch.tensor(arguments.outputs(students.base, tokens), device=device)
    step, out = arguments.whole(batch_size, "batch_size", 1), []
    for first in range(0, len(rows), step):
        some = rows[first : first + step]
        ids = torch.nn.utils.rnn.pad_sequence(some, batch_first=True).to(device)
        ends = torch.tensor([i * ids.shape[1] + len(row) - 1 for i, row in enumerate(some)], device=device)
        out.append(student_logits(students, ids, ends).float().log_softmax(-1)[..., chosen].cpu())
    return torch.cat(out, dim=1)


@contextmanager
def steered(
    plain: "PreTrainedModel", model: "TransformerBridge", added: tuple[int, Float[Tensor, "d_model"]] | None
) -> Iterator[None]:
    """Within, the vector is added to the residual stream after the block, at every position of Hugging Face's model.

    Raises where that does not give the logits of the bridge with the same vector at its own `hook_out`.
    """
    if added is None:
        yield
        return
    layer, vector = _added(model, added)
    handle = _blocks(plain)[layer].register_forward_hook(lambda module, inputs, out: _plus(out, vector))
    try:
        tokens = checks.probe_tokens(min(arguments.vocabulary(model), arguments.embedding(model))).to(vector.device)
        hook = (f"blocks.{layer}.hook_out", lambda activation, hook: activation + vector)
        with torch.no_grad():
            expected = model.run_with_hooks(tokens, fwd_hooks=[hook])
            difference = checks.differ(plain(input_ids=tokens, use_cache=False).logits, expected)
        if difference:
            raise ValueError(f"a vector added after block {layer} gives other logits than in the bridge ({difference})")
        yield
    finally:
        handle.remove()


def _added(model: "TransformerBridge", added: tuple[int, Tensor]) -> tuple[int, Tensor]:
    words = "a pair (block, vector), the vector as wide as the residual stream"
    if not (isinstance(added, tuple) and len(added) == 2 and isinstance(added[1], Tensor)):
        arguments.refuse("added", words, added)
    layer = arguments.whole(added[0], "added", 0, model.cfg.n_layers - 1)
    vector = added[1].to(model.W_U)
    if vector.shape != (model.cfg.d_model,) or not vector.isfinite().all():
        arguments.refuse("added", words, added[1])
    return layer, vector


def _blocks(plain: "PreTrainedModel") -> nn.ModuleList:
    """The list of blocks, by the names that all parameters of blocks have."""
    name = next(name for name, _ in plain.named_parameters() if BLOCK.match(name))
    found = BLOCK.match(name)
    return plain.get_submodule(name[: found.start(1) - 1])  # type: ignore[union-attr]


def _plus(out: Tensor | tuple, vector: Tensor) -> Tensor | tuple:
    """The output of a block, which families give alone or before others."""
    return (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector


# peft's format.


def save_adapter(students: Students, member: int, folder: str | Path) -> Path:
    """Write one member's adapter as peft does: adapter_config.json and adapter_model.safetensors.

    An adapter that is there already is replaced whole. Raises for a folder that holds other files, and for a base whose
    weights are not those of its files: an adapter names its base, and would be loaded on it.
    """
    arguments.instance(students, Students, "students")
    i = arguments.whole(member, "member", 0, len(students) - 1)
    if not students.A:
        raise ValueError("these students were tuned whole and have no adapter; save their merged models")
    _check_trained(students.base)
    folder = _folder(folder)
    tensors = {f"{_PEFT}{name}.lora_{kind}.weight": part[name][i].cpu().contiguous().clone()
               for kind, part in (("A", students.A), ("B", students.B)) for name in students.A}  # fmt: skip
    rank = next(iter(students.A.values())).shape[1]
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": students.scale * rank,
        "lora_dropout": 0.0, "bias": "none", "use_rslora": False, "fan_in_fan_out": False, "inference_mode": True,
        "target_modules": list(students.A),
        "base_model_name_or_path": _name_of(students.base),
    }  # fmt: skip
    try:
        with files.replaced_folder(folder, (adapters.WEIGHTS, adapters.CONFIG)) as fresh:
            files.write_bytes(fresh / adapters.WEIGHTS, save(tensors))
            files.write_text(fresh / adapters.CONFIG, json.dumps(config, indent=2) + "\n")
    except FileExistsError as error:
        raise ValueError(str(error)) from None
    return folder


def _name_of(base: "TransformerBridge") -> str | None:
    """The base's id or folder, as it was loaded by us or by Hugging Face."""
    name = getattr(base, "mechsub_source", {}).get("model_name")
    return name or getattr(plain_model(base).config, "_name_or_path", "") or None


def _check_trained(model: "TransformerBridge") -> None:
    """Raise for a model that is not what its name stands for, so that an adapter's file cannot name it as its base."""
    source = language.source_of(model)
    if "tuned_sha256" in source:
        what = "is a merged student"
    elif "adapter" in source:
        what = "has an adapter merged into it"
    elif source.get("weights", weights.TRAINED) != weights.TRAINED:
        what = f"has the weights {source['weights']!r}"
    elif "edited" in source:
        what = "was changed after it was loaded"
    else:
        return
    raise ValueError(
        f"this base {what}, and adapter files can name {source['model_name']} alone, whose weights are others; keep "
        "students.merged, or the students themselves"
    )


def _folder(folder: str | Path, name: str = "folder") -> Path:
    return folder if isinstance(folder, Path) else Path(arguments.text(folder, name))


def load_adapters(model: "TransformerBridge", folders: Sequence[str | Path]) -> Students:
    """Adapters of peft's format as members; all must have the same layers, rank and scale.

    Raises for an adapter that is no plain low-rank update (DoRA, biases, embeddings, ranks that differ by layer), or
    that was trained on another model, and for a model whose weights are not those of its files.
    """
    plain, sums = plain_model(arguments.model(model)), {}
    _check_trained(model)
    check_fp32(plain)
    loaded = []
    for i, folder in enumerate(arguments.items(folders, "folders", "folders")):
        path = _folder(folder, f"folders[{i}]")
        try:
            loaded.append(_read_adapter(path, f"folders[{i}]"))
            _check_base(model, path)
        except adapters.Refused as error:
            raise ValueError(f"folders[{i}] {error}") from None
        sums[f"folders[{i}]"] = files.file_sum(path / adapters.WEIGHTS)
    layers, scale = list(loaded[0][0]), loaded[0][1]
    rank = len(next(iter(loaded[0][0].values()))[0])
    for i, (adapter, other) in enumerate(loaded):
        if set(adapter) != set(layers) or other != scale or any(len(A) != rank for A, _ in adapter.values()):
            raise ValueError(f"folders[{i}] has other layers, rank or scale than folders[0]; load it by itself")
        for name, pair in adapter.items():
            _check_shapes(plain, name, *pair, f"folders[{i}]")
    place = model.W_U.device
    A = {name: torch.stack([adapter[name][0] for adapter, _ in loaded]).to(place) for name in layers}
    B = {name: torch.stack([adapter[name][1] for adapter, _ in loaded]).to(place) for name in layers}
    return Students(model, A, B, {}, scale, {"adapters": sums})


def check_fp32(plain: "PreTrainedModel") -> None:
    """Raise for a model that adapters, which are fp32, cannot be added to."""
    for name, value in plain.named_parameters():
        if value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            raise ValueError(f"students need a base in fp32, and {name} is {kind}; load it with dtype=torch.float32")


def _check_base(model: "TransformerBridge", adapter: Path) -> None:
    """Raise Refused where the adapter's files name another model; a model that we did not load has no name."""
    name = getattr(model, "mechsub_source", {}).get("model_name", "")
    folder = sources.default_folder() if name == sources.DEFAULT else sources.find(name)
    if folder is not None:
        adapters.check_base(adapter, name, folder)


def _check_shapes(plain: "PreTrainedModel", name: str, A: Tensor, B: Tensor, where: str) -> None:
    try:
        layer = plain.get_submodule(name)
    except AttributeError:
        layer = None
    if not _is_linear(layer) or layer.weight.shape != (len(B), A.shape[1]) or A.shape[0] != B.shape[1]:
        raise ValueError(f"{where} has an adapter of {name}, which this model lacks or has in another size")
    _check_untied(plain, f"{name}.weight", where)


def _check_untied(plain: "PreTrainedModel", name: str, what: str) -> None:
    """Raise for a weight that is another part's too: in the sum of weights the change would be in both."""
    own = plain.get_parameter(name)
    others = [
        other for other, value in plain.named_parameters(remove_duplicate=False) if value is own and other != name
    ]
    if others:
        raise ValueError(
            f"{what} has an adapter of {name}, which is tied to {others[0]}, so no merged model has it alone; leave "
            "that layer out"
        )


def _read_adapter(folder: Path, where: str) -> tuple[dict[str, tuple[Tensor, Tensor]], float]:
    config = adapters.checked_config(folder)
    try:
        rank, alpha = arguments.whole(config["r"], "r", 1), config["lora_alpha"]
        arguments.number(alpha, "lora_alpha", "a number")
    except Exception as error:  # missing, or of another kind: one remedy
        raise ValueError(f"{where} has no rank or lora_alpha in its configuration ({error}); save it again") from None
    extra = [key for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save") if config.get(key)]
    if extra or config.get("bias", "none") != "none":
        raise ValueError(f"{where} is no plain LoRA ({', '.join(extra) or 'bias'}); merge it with peft")
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, value in adapters.tensors(folder / adapters.WEIGHTS).items():
        found = re.fullmatch(rf"{re.escape(_PEFT)}(.+)\.lora_([AB])\.weight", key)
        if not found:
            raise ValueError(f"{where} holds {key}, which is no plain LoRA; merge it with peft")
        pairs.setdefault(found[1], {})[found[2]] = value.float()
    for name, pair in pairs.items():
        if len(pair) < 2:
            raise ValueError(f"{where} lacks lora_{'B' if 'A' in pair else 'A'} of {name}; save it again")
        if len(pair["A"]) != rank:
            raise ValueError(f"{where} says r = {rank}, and {name} has rank {len(pair['A'])}; save it again")
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return {name: (pair["A"], pair["B"]) for name, pair in pairs.items()}, scale
