"""Every function on tiny models of many families, against Hugging Face's eager forward pass: right, or one line."""

import pytest
import torch
from tiny_families import FAMILIES, drawn, judge

TOLERANCE = 2e-3  # of logits and log-probabilities in fp32, whose spread is several nats; faults were of 0.02 to 290
USUAL = (
    "llama", "mistral, window", "qwen2", "phi3, window", "gemma", "gemma2", "gemma3, window", "gpt2", "gpt_neox",
    "olmo2", "granite", "cohere", "bloom", "mpt", "opt",
)  # fmt: skip
# Where a function cannot be right it says so; anything else here is a fault.
REFUSED = {
    "change": ("no RMS norm", "soft cap"),
    "price": ("soft cap",),
    "dla component": ("does not sum to what the block adds",),  # a further branch, or a scaled layer
    "dla head": ("no attention heads", "does not sum to what the block adds"),
}
# What TransformerLens's bridges of these families do not have.
NO_FINAL_NORM = ("no final norm", "does not fire", "never fire", "not what this model unembeds", "'ln_final.hook_in'")
LACKING = ("opt, no final norm", "openai_gpt", "modernbert_decoder, window")


def check(outcomes: dict, tolerance: float = TOLERANCE, also: tuple[str, ...] = ()) -> list[str]:
    """What is wrong, or refused without need."""
    wrong = []
    for what, outcome in outcomes.items():
        if isinstance(outcome, str):
            if not any(reason in outcome for reason in (*REFUSED.get(what, ()), *also)):
                wrong.append(f"{what} is refused: {outcome}")
        elif not outcome < tolerance:
            wrong.append(f"{what} is off by {outcome:.2g}")
    return wrong


@pytest.mark.filterwarnings("ignore:this model does not give")
@pytest.mark.parametrize("name", USUAL)
def test_a_family_is_right_or_refused(name):
    assert not check(judge(name))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:this model does not give")
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in USUAL])
def test_a_further_family_is_right_or_refused(as_users_run_it, name):
    assert not check(judge(name), also=NO_FINAL_NORM if name in LACKING else ())


@pytest.mark.filterwarnings("ignore:this model does not give")
def test_a_hook_that_never_fires_steers_nothing_and_is_refused(as_users_run_it):
    """GPT-1's blocks put out a list, which the bridge's hook does not see: steered logits were those of a plain run."""
    outcomes = judge("openai_gpt")
    assert "never fires" in outcomes["steered"] and outcomes["next token"] < TOLERANCE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:this model does not give")
@pytest.mark.parametrize("name", FAMILIES)
def test_random_configurations_are_right_or_refused(as_users_run_it, name):
    """2,000 cases over all families: depth, width, heads, KV heads, windows, tying, caps, scales, prompts' length."""
    wrong = []
    for seed in range(-(-2000 // len(FAMILIES))):
        draw, length = drawn(name, seed)
        outcomes = judge(name, draw, length, torch.float64)
        wrong += [f"{draw}, prompts of {length}: {w}" for w in check(outcomes, 1e-3) if "is refused" not in w]
    assert not wrong, "\n".join(wrong[:10])
