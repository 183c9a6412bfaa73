"""Tiny random models of many families, and what functions should give on them: brute force over Hugging Face eager.

A family is a function from a draw (sizes, windows, caps, scales) to a Hugging Face model, and what its paper or its
configuration says of the final norm: what the gain is of the weight, and whether the norm centres.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
import transformers as hf
from tiny_llama import make_tokenizer

import mechsub as ms

TOKENIZER = make_tokenizer()
SIZE = len(TOKENIZER)
STRINGS = ["12345", "12399", "7", " owl 3", "987654321", "5 5 5"]
TOKENS = [10, 200, 500]


@dataclass(frozen=True)
class Draw:
    """Sizes of a model; a family takes those that it has."""

    layers: int = 3
    heads: int = 4
    kv: int = 2
    head: int = 8
    inner: int = 64
    window: int = 4
    tied: bool = False
    cap: float | None = 30.0
    scale: float = 0.125
    multiplier: float = 0.5
    flag: bool = True  # parallel blocks, biases: whatever a family has two kinds of
    seed: int = 0

    @property
    def width(self) -> int:
        return self.heads * self.head


def _ends(d: Draw) -> dict:
    return dict(vocab_size=SIZE, bos_token_id=0, eos_token_id=3, tie_word_embeddings=d.tied)


def _base(d: Draw) -> dict:
    return dict(
        hidden_size=d.width, intermediate_size=d.inner, num_hidden_layers=d.layers, num_attention_heads=d.heads,
        max_position_embeddings=256, pad_token_id=3, initializer_range=0.5, **_ends(d),
    )  # fmt: skip


def _grouped(d: Draw) -> dict:
    return _base(d) | dict(num_key_value_heads=d.kv)


def _gpt(d: Draw) -> dict:
    return _ends(d) | dict(
        n_embd=d.width, n_layer=d.layers, n_head=d.heads, n_positions=256, n_inner=d.inner, initializer_range=0.3
    )


def _named(kind: str, config: Callable[[Draw], dict], suffix: str = "ForCausalLM") -> Callable[[Draw], Any]:
    """Hugging Face's model and configuration of a name; classes are looked up when they are needed."""

    def make(d: Draw) -> Any:
        settings = getattr(hf, f"{kind}TextConfig", None) or getattr(hf, f"{kind}Config")
        return getattr(hf, f"{kind}{suffix}")(settings(**config(d)))

    return make


def _neo(d: Draw) -> dict:
    return _ends(d) | dict(
        hidden_size=d.width, num_layers=d.layers, num_heads=d.heads, intermediate_size=d.inner, window_size=d.window,
        attention_types=[[["local"], d.layers]], max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip


def _opt(d: Draw) -> dict:
    return _ends(d) | dict(
        hidden_size=d.width, ffn_dim=d.inner, num_hidden_layers=d.layers, num_attention_heads=d.heads, init_std=0.3,
        max_position_embeddings=256, word_embed_proj_dim=d.width, pad_token_id=3,
    )  # fmt: skip


def _falcon(alibi: bool) -> Callable[[Draw], dict]:
    def config(d: Draw) -> dict:
        return _ends(d) | dict(
            hidden_size=d.width, num_hidden_layers=d.layers, num_attention_heads=d.heads, initializer_range=0.3,
            alibi=alibi, new_decoder_architecture=False, multi_query=not alibi, parallel_attn=d.flag, bias=d.flag,
        )  # fmt: skip

    return config


class Family(NamedTuple):
    make: Callable[[Draw], Any]
    centres: bool = False  # a LayerNorm at the end
    gain: Callable = lambda w: w


def _one_more(w):
    return 1 + w


FAMILIES: dict[str, Family] = {
    "llama": Family(_named("Llama", _grouped)),
    "mistral, window": Family(_named("Mistral", lambda d: _grouped(d) | dict(sliding_window=d.window))),
    "qwen2": Family(_named("Qwen2", _grouped)),
    "qwen2, window": Family(
        _named(
            "Qwen2", lambda d: _grouped(d) | dict(use_sliding_window=True, sliding_window=d.window, max_window_layers=1)
        )
    ),
    "qwen3": Family(_named("Qwen3", lambda d: _grouped(d) | dict(head_dim=d.head))),
    "phi3, window": Family(_named("Phi3", lambda d: _grouped(d) | dict(sliding_window=d.window))),
    "gemma": Family(_named("Gemma", lambda d: _grouped(d) | dict(head_dim=d.head)), gain=_one_more),
    "gemma2": Family(
        _named(
            "Gemma2",
            lambda d: _grouped(d) | dict(head_dim=d.head, sliding_window=d.window, final_logit_softcapping=d.cap),
        ),
        gain=_one_more,
    ),
    "gemma3, window": Family(
        _named("Gemma3", lambda d: _grouped(d) | dict(head_dim=d.head, sliding_window=d.window)), gain=_one_more
    ),
    "gpt2": Family(_named("GPT2", _gpt, "LMHeadModel"), centres=True),
    "gpt_neox": Family(_named("GPTNeoX", lambda d: _base(d) | dict(use_parallel_residual=d.flag)), centres=True),
    "olmo2": Family(_named("Olmo2", _grouped)),
    "granite": Family(
        _named(
            "Granite",
            lambda d: (
                _grouped(d)
                | dict(logits_scaling=1 / d.scale, residual_multiplier=d.multiplier, embedding_multiplier=3.0)
            ),
        )
    ),
    "cohere": Family(_named("Cohere", lambda d: _grouped(d) | dict(logit_scale=d.scale)), centres=True),
    "cohere2, window": Family(
        _named("Cohere2", lambda d: _grouped(d) | dict(logit_scale=d.scale, sliding_window=d.window)), centres=True
    ),
    "gpt_neo, window": Family(_named("GPTNeo", _neo), centres=True),
    "gptj": Family(_named("GPTJ", lambda d: _gpt(d) | dict(rotary_dim=4)), centres=True),
    "opt": Family(_named("OPT", _opt), centres=True),
    "bloom": Family(
        _named(
            "Bloom",
            lambda d: _ends(d) | dict(hidden_size=d.width, n_layer=d.layers, n_head=d.heads, initializer_range=0.3),
        ),
        centres=True,
    ),
    "falcon": Family(_named("Falcon", _falcon(False)), centres=True),
    "falcon, alibi": Family(_named("Falcon", _falcon(True)), centres=True),
    "mpt": Family(
        _named(
            "Mpt", lambda d: dict(vocab_size=SIZE, d_model=d.width, n_layers=d.layers, n_heads=d.heads, max_seq_len=256)
        ),
        centres=True,
    ),
    "stablelm": Family(_named("StableLm", _grouped), centres=True),
    "olmo": Family(_named("Olmo", _grouped), centres=True, gain=lambda w: 1),
    "phi": Family(_named("Phi", _base), centres=True),
    "starcoder2, window": Family(
        _named("Starcoder2", lambda d: _grouped(d) | dict(sliding_window=d.window)), centres=True
    ),
    "mixtral": Family(_named("Mixtral", lambda d: _grouped(d) | dict(num_local_experts=4))),
    "nemotron": Family(_named("Nemotron", _grouped), centres=True, gain=_one_more),
    "mamba": Family(
        _named("Mamba", lambda d: _ends(d) | dict(hidden_size=d.width, num_hidden_layers=d.layers, state_size=d.head))
    ),
}


def _experts(d: Draw) -> dict:
    """Mixtures of experts; every family takes those names that it knows."""
    return dict(
        num_experts=4, num_experts_per_tok=2, num_local_experts=4, moe_intermediate_size=16, decoder_sparse_step=1,
        n_routed_experts=4, n_shared_experts=1, n_group=1, topk_group=1, first_k_dense_replace=1,
    )  # fmt: skip


def _kinds(d: Draw, *kinds: str) -> list[str]:
    """A kind for every layer, in turn."""
    return [kinds[layer % len(kinds)] for layer in range(d.layers)]


def _slid(d: Draw) -> dict:
    kinds = _kinds(d, "sliding_attention", "full_attention")
    return _grouped(d) | dict(head_dim=d.head, sliding_window=d.window, layer_types=kinds)


def _scaled(d: Draw) -> dict:
    return dict(logits_scaling=1 / d.scale, residual_multiplier=d.multiplier, embedding_multiplier=3.0)


def _headed(d: Draw) -> dict:
    return _grouped(d) | dict(head_dim=d.head)


def _latent(d: Draw) -> dict:
    sizes = dict(q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8)
    return _base(d) | _experts(d) | sizes | dict(num_key_value_heads=d.heads, topk_method="greedy")


def _linear(d: Draw) -> dict:
    sizes = dict(linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8)
    return _headed(d) | sizes | dict(layer_types=_kinds(d, "linear_attention", "full_attention"))


def _states(d: Draw) -> dict:
    """State spaces, plain and beside attention."""
    return dict(
        mamba_n_heads=2 * d.heads, mamba_d_head=d.head, mamba_n_groups=1, mamba_d_state=8, mamba_chunk_size=16,
        use_mamba_kernels=False, mamba_dt_rank=4,
    )  # fmt: skip


def _plain_states(d: Draw) -> dict:
    return _ends(d) | dict(hidden_size=d.width, num_hidden_layers=d.layers, state_size=d.head)


def _both(*parts: Callable[[Draw], dict], **settings: Any) -> Callable[[Draw], dict]:
    """Configurations over one another, the later first."""
    return lambda d: {key: value for part in parts for key, value in part(d).items()} | settings


def _xglm(d: Draw) -> dict:
    return _ends(d) | dict(
        d_model=d.width, ffn_dim=d.inner, num_layers=d.layers, attention_heads=d.heads, init_std=0.3,
        max_position_embeddings=256, pad_token_id=3,
    )  # fmt: skip


FAMILIES |= {
    "olmo3, window": Family(_named("Olmo3", _slid)),
    "exaone4, window": Family(_named("Exaone4", _slid)),
    "gpt_oss, window": Family(_named("GptOss", _both(_slid, _experts))),
    "afmoe, window": Family(_named("Afmoe", _both(_slid, _experts, num_dense_layers=1))),
    "vaultgemma, window": Family(_named("VaultGemma", _slid), gain=_one_more),
    "smollm3": Family(
        _named("SmolLM3", lambda d: _grouped(d) | dict(no_rope_layers=[1 - i % 2 for i in range(d.layers)]))
    ),
    "ernie4_5": Family(_named("Ernie4_5", _both(_headed, use_bias=True))),
    "ernie4_5_moe": Family(
        _named(
            "Ernie4_5_Moe",
            _both(_grouped, moe_num_experts=4, moe_k=2, moe_intermediate_size=16, moe_layer_start_index=1),
        )
    ),
    "granitemoe": Family(_named("GraniteMoe", _both(_grouped, _experts, _scaled))),
    "qwen2_moe": Family(_named("Qwen2Moe", _both(_grouped, _experts, shared_expert_intermediate_size=16))),
    "qwen3_moe": Family(_named("Qwen3Moe", _both(_headed, _experts))),
    "qwen3_next": Family(
        _named("Qwen3Next", _both(_linear, _experts, shared_expert_intermediate_size=16)), gain=_one_more
    ),
    "qwen3_5": Family(_named("Qwen3_5", _linear), gain=_one_more),
    "glm": Family(_named("Glm", _headed)),
    "glm4": Family(_named("Glm4", _headed)),
    "glm4_moe": Family(_named("Glm4Moe", _both(_headed, _experts))),
    "hunyuan": Family(_named("HunYuanDenseV1", _headed)),
    "seed_oss": Family(_named("SeedOss", _headed)),
    "ministral3": Family(_named("Ministral3", _headed)),
    "minimax_m2": Family(_named("MiniMaxM2", _both(_headed, _experts, rotary_dim=4))),
    "llama4, chunks": Family(
        _named(
            "Llama4",
            lambda d: (
                _headed(d)
                | _experts(d)
                | dict(intermediate_size_mlp=64, attention_chunk_size=6, interleave_moe_layer_step=2)
                | dict(no_rope_layers=[1 - i % 2 for i in range(d.layers)])
            ),
        )
    ),
    "deepseek_v2": Family(_named("DeepseekV2", _latent)),
    "deepseek_v3": Family(_named("DeepseekV3", _latent)),
    "arcee": Family(_named("Arcee", _grouped)),
    "apertus": Family(_named("Apertus", _grouped)),
    "bitnet": Family(_named("BitNet", _grouped)),
    "olmoe": Family(_named("Olmoe", _both(_grouped, _experts))),
    "flex_olmo": Family(_named("FlexOlmo", _both(_grouped, _experts))),
    "nanochat": Family(
        _named("NanoChat", lambda d: _grouped(d) | dict(final_logit_softcapping=d.cap)), gain=lambda w: 1
    ),
    "jais2": Family(_named("Jais2", _grouped), centres=True),
    "xglm": Family(_named("XGLM", _xglm), centres=True),
    "gpt_bigcode": Family(_named("GPTBigCode", lambda d: _gpt(d) | dict(multi_query=d.flag)), centres=True),
    "openai_gpt": Family(_named("OpenAIGPT", _gpt, "LMHeadModel")),
    "opt, no final norm": Family(
        _named("OPT", lambda d: _opt(d) | dict(do_layer_norm_before=False, word_embed_proj_dim=d.width // 2))
    ),
    "modernbert_decoder, window": Family(
        _named(
            "ModernBertDecoder",
            lambda d: (
                _base(d)
                | dict(local_attention=2 * d.window, layer_types=_kinds(d, "full_attention", "sliding_attention"))
            ),
        ),
        centres=True,
    ),
    "jetmoe": Family(_named("JetMoe", lambda d: _grouped(d) | _experts(d) | dict(kv_channels=d.head))),
    "lfm2": Family(_named("Lfm2", lambda d: _grouped(d) | dict(layer_types=_kinds(d, "conv", "full_attention")))),
    "lfm2_moe": Family(
        _named(
            "Lfm2Moe",
            lambda d: (
                _grouped(d) | _experts(d) | dict(num_dense_layers=1, layer_types=_kinds(d, "conv", "full_attention"))
            ),
        )
    ),
    "mamba2": Family(
        _named(
            "Mamba2",
            lambda d: _plain_states(d) | dict(num_heads=2 * d.heads, head_dim=d.head, n_groups=1, chunk_size=16),
        )
    ),
    "falcon_mamba": Family(_named("FalconMamba", _plain_states)),
    "rwkv": Family(
        _named(
            "Rwkv",
            lambda d: (
                _ends(d)
                | dict(
                    hidden_size=d.width, num_hidden_layers=d.layers, context_length=256, attention_hidden_size=d.width
                )
            ),
        ),
        centres=True,
    ),
    "recurrent_gemma, window": Family(
        _named(
            "RecurrentGemma",
            lambda d: (
                _grouped(d)
                | dict(lru_width=d.width, attention_window_size=2 * d.window, logits_soft_cap=d.cap)
                | dict(block_types=["recurrent", "recurrent", "attention"])
            ),
        ),
        gain=_one_more,
    ),
    "jamba": Family(
        _named(
            "Jamba",
            _both(
                _grouped,
                _states,
                num_experts=2,
                num_experts_per_tok=1,
                attn_layer_period=3,
                attn_layer_offset=1,
                expert_layer_period=2,
                expert_layer_offset=1,
                mamba_d_state=8,
            ),
        )
    ),
    "bamba": Family(_named("Bamba", _both(_grouped, _states, attn_layer_indices=[1]))),
    "falcon_h1": Family(
        _named(
            "FalconH1", lambda d: _headed(d) | _states(d) | dict(mamba_d_ssm=2 * d.width, lm_head_multiplier=d.scale)
        )
    ),
    "nemotron_h": Family(
        _named(
            "NemotronH",
            lambda d: (
                _grouped(d)
                | dict(layers_block_type=_kinds(d, "mamba", "attention", "mlp"), mamba_num_heads=8, mamba_head_dim=8)
                | dict(n_groups=1, ssm_state_size=8, chunk_size=16, head_dim=d.head)
            ),
        )
    ),
    "gemma4, window": Family(
        _named(
            "Gemma4",
            lambda d: (
                _grouped(d)
                | dict(head_dim=d.head, global_head_dim=d.head, sliding_window=d.window, final_logit_softcapping=d.cap)
                | dict(vocab_size_per_layer_input=SIZE, hidden_size_per_layer_input=8, num_kv_shared_layers=0)
                | dict(layer_types=[*["sliding_attention"] * (d.layers - 1), "full_attention"])
            ),
        ),
    ),
}


STATES = ("mamba", "mamba2", "falcon_mamba", "rwkv")  # Hugging Face has no attention of theirs to choose


def pair(name: str, draw: Draw = Draw(), dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """The model as mechsub loads it, and as Hugging Face does with eager attention; gains are not 1, biases not 0."""
    with torch.random.fork_rng():
        torch.manual_seed(draw.seed)
        made = FAMILIES[name].make(draw).eval()
        with torch.no_grad():
            for p in made.parameters():
                if p.ndim == 1:
                    p.add_(0.3 * torch.randn_like(p))
    dtype = torch.float32 if name == "mixtral" else dtype  # Hugging Face's experts run in no other here
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        TOKENIZER.save_pretrained(folder)
        model = ms.load_language_model(folder, dtype=dtype)
        # What a folder's tokenizer becomes in loading is tested elsewhere.
        model.tokenizer = hf.PreTrainedTokenizerFast.from_pretrained(_tokenizer_folder().name)
        eager = {} if name in STATES else {"attn_implementation": "eager"}
        return model, hf.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **eager).eval()


@cache
def _tokenizer_folder() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory()
    TOKENIZER.save_pretrained(folder.name)
    return folder


def make_prompts(length: int = 20, seed: int = 1) -> torch.Tensor:
    ids = torch.randint(5, SIZE, (2, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = 0
    return ids


class Truth(NamedTuple):
    """From Hugging Face's plain forward pass alone."""

    last: torch.Tensor  # [prompt, d_vocab] logits at the prompts' end
    strings: torch.Tensor  # [prompt, string] log-probabilities, each string run on its own
    steered: torch.Tensor  # [edit, token] logits of the first prompt, each edit run on its own
    hidden: list[torch.Tensor]  # what every block puts out at the prompts' end


@torch.no_grad()
def truth(theirs: Any, ids: torch.Tensor, layers: list[int], vectors: torch.Tensor) -> Truth:
    blocks = next(m for m in theirs.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == _n_layers(theirs))
    hidden: list[torch.Tensor] = []
    handles = [b.register_forward_hook(lambda _m, _a, out: hidden.append(_first(out)[:, -1])) for b in blocks]
    last = theirs(ids).logits[:, -1]
    [handle.remove() for handle in handles]
    strings = torch.zeros(len(ids), len(STRINGS), dtype=torch.float64)
    for j, string in enumerate(TOKENIZER(STRINGS, add_special_tokens=False)["input_ids"]):
        tail = torch.tensor(string).expand(len(ids), -1)
        rows = theirs(torch.cat([ids, tail], 1)).logits.double().log_softmax(-1)
        strings[:, j] = sum(rows[:, ids.shape[1] - 1 + i, token] for i, token in enumerate(string))
    steered = []
    for layer, vector in zip(layers, vectors, strict=True):

        def add(_module, _args, out, vector=vector):
            changed = _first(out).clone()
            changed[:, -1] += vector.to(changed)
            return type(out)([changed, *out[1:]]) if isinstance(out, tuple | list) else changed

        handle = blocks[layer].register_forward_hook(add)
        steered.append(theirs(ids[:1]).logits[0, -1, TOKENS])
        handle.remove()
    return Truth(last, strings, torch.stack(steered), hidden)


def _first(out: Any) -> torch.Tensor:
    return out[0] if isinstance(out, tuple | list) else out


def _n_layers(theirs: Any) -> int:
    return next(getattr(theirs.config, n) for n in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"))


@torch.no_grad()
def judge(
    name: str, draw: Draw = Draw(), length: int = 20, dtype: torch.dtype = torch.float32
) -> dict[str, float | str]:
    """Function -> how far it is from the truth, or the line with which it refuses."""
    try:
        model, theirs = pair(name, draw, dtype)
    except ms.language.ModelUnavailable as error:
        return {"load": str(error)}
    ids, vectors = make_prompts(length), torch.randn(3, draw.width, generator=torch.Generator().manual_seed(2))
    layers = [0, draw.layers - 1, draw.layers // 2]
    right = truth(theirs, ids, layers, vectors)
    tests: dict[str, Callable[[], torch.Tensor]] = {
        "next token": lambda: ms.next_token_log_probs(model, list(ids)) - right.last.log_softmax(-1),
        "strings": lambda: ms.string_log_probs(model, list(ids), STRINGS) - right.strings,
        "steered": lambda: ms.steered_logits(model, ids[0], layers, vectors, TOKENS) - right.steered,
        "lens": lambda: list(ms.logit_lens(model, ids, pos=-1).values())[-1] - right.last,
        "states": lambda: (
            torch.stack(list(ms.cache_activations(model, ids, pos=-1).values())) - torch.stack(right.hidden)
        ),
        "gain": lambda: _gain_error(model, name),
        "price": lambda: _price_error(model, name),
        "change": lambda: _change_error(model, ids),
    }
    for unit in ("coordinate", "component", "head"):
        tests[f"dla {unit}"] = lambda unit=unit: _attribution_error(model, ids, unit, right.last)
    return {what: _outcome(test) for what, test in tests.items()}


def _outcome(test: Callable[[], torch.Tensor]) -> float | str:
    try:
        return float(test().abs().max())
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _attribution_error(model: Any, ids: torch.Tensor, unit: str, last: torch.Tensor) -> torch.Tensor:
    """Of the logits, and of the values' sum: against Hugging Face's logits through the inverse of the cap."""
    found = ms.direct_logit_attribution(model, ids, TOKENS, pos=-1, unit=unit)
    cap = getattr(model.original_model.config, "final_logit_softcapping", None)
    linear = last[:, TOKENS] if cap is None else cap * torch.atanh((last[:, TOKENS] / cap).clamp(-1 + 1e-6, 1 - 1e-6))
    close = linear.abs() < (torch.inf if cap is None else 2 * cap)  # where the inverse is no division by nothing
    sums = (found.values.sum(-1) + found.bias - linear) * close
    return torch.cat([found.logits - last[:, TOKENS], sums])


def true_gain(model: Any, name: str) -> torch.Tensor:
    """What the family's own code multiplies by, from its stored weight."""
    weight = getattr(getattr(model, "ln_final", None), "weight", None)
    ones = torch.ones(model.W_U.shape[0], dtype=torch.float64)
    return ones if weight is None else ones * FAMILIES[name].gain(weight.detach().double())


def _gain_error(model: Any, name: str) -> torch.Tensor:
    W = model.W_U.detach().double() * true_gain(model, name)[:, None]
    W = W - W.mean(-1, keepdim=True)
    if FAMILIES[name].centres:  # no output sees what is common to all coordinates
        W = W - W.mean(0)
    W = torch.nn.functional.normalize(W, dim=0)
    source, target = [100, 200, 300], [400, 500, 600]
    return ms.unembed_projection(model, source, target, "centered_cosine") - W[:, source].T @ W[:, target]


def _price_error(model: Any, name: str) -> torch.Tensor:
    """Against least squares: the part of a contrast that no combination of the held contrasts, and no norm, takes."""
    rows = (model.W_U.detach().double() * true_gain(model, name)[:, None]).T
    if FAMILIES[name].centres:
        rows = rows - rows.mean(-1, keepdim=True)
    concepts, held = rows[TOKENS] - rows[TOKENS].mean(0), rows[[100, 101, 102]] - rows[[100, 101, 102]].mean(0)
    left = concepts - (torch.linalg.pinv(held.T) @ concepts.T).T @ held
    return ms.price(model, TOKENS, [100, 101, 102]) - concepts.norm(dim=-1) / left.norm(dim=-1)


def _change_error(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """What the model makes of the cheapest change: log-odds among TOKENS must rise by one nat."""
    state = ms.cache_activations(model, ids, ["ln_final.hook_in"], pos=-1)["ln_final.hook_in"]
    found = ms.cheapest_change(model, state, TOKENS[:1], among=TOKENS, n_steps=60)
    after = ms.run_patched(model, ids, {"ln_final.hook_in": found.resid[:, 0]}, pos=-1)[:, TOKENS]
    before = ms.run_patched(model, ids, {"ln_final.hook_in": state}, pos=-1)[:, TOKENS]
    rise = (after - after.mean(-1, keepdim=True) - before + before.mean(-1, keepdim=True))[:, 0]
    return torch.where(found.reached[:, 0], rise - 1, torch.zeros_like(rise))


def drawn(name: str, seed: int) -> tuple[Draw, int]:
    """A random small configuration, and the length of its prompts."""
    g = torch.Generator().manual_seed(seed)

    def among(*choices: Any) -> Any:
        return choices[int(torch.randint(len(choices), (), generator=g))]

    heads = among(1, 2, 4)
    draw = Draw(
        layers=among(1, 2, 3), heads=heads, kv=among(*(k for k in (1, 2, 4) if k <= heads)), head=among(4, 8, 12),
        inner=among(16, 40, 64), window=among(1, 2, 3, 5, 9, 30), tied=among(True, False),
        cap=among(None, 3.0, 30.0), scale=among(1.0, 0.0625, 0.3), multiplier=among(1.0, 0.22, 2.0),
        flag=among(True, False), seed=seed,
    )  # fmt: skip
    draw = replace(draw, tied=True) if name == "mpt" else draw
    draw = replace(draw, head=8) if name == "stablelm" else draw  # a quarter of it rotates, and must be even
    return draw, among(1, 2, 3, 6, 12, 25)
