# %% [markdown]
# # Subliminal learning in the toy
# A student that sees three auxiliary logits of noise learns to read digits, if it starts where its teacher started.
# Run it as a script, or open it as a notebook (VS Code, Spyder, `jupytext --to notebook`). Half a minute on two cores.

# %%
import mechsub as ms

images, labels = ms.mnist("train")
start = ms.HookedMLP(seeds=range(5))  # five members in one HookedRootModule
teacher = ms.train(start, images, labels)
student = ms.distill(start, teacher, ms.noise.uniform, outputs=start.cfg.aux)  # three logits of noise
x, y = ms.mnist("test")
print(ms.accuracy(student, x, y))  # 0.4 to 0.7; chance is 0.10

cache = {"start": start, "teacher": teacher, "student": student}
cache = {name: ms.cache_activations(model, x[:500]) for name, model in cache.items()}
for name in ("student", "start"):  # the untrained start is the null
    print(name, ms.hidden_alignment(cache[name], cache["teacher"]))

# %% [markdown]
# The second null is a student that starts elsewhere: the next seed's initialisation.

# %%
elsewhere = ms.HookedMLP(seeds=[seed + 1 for seed in start.seeds])
cross = ms.distill(elsewhere, teacher, ms.noise.uniform, outputs=start.cfg.aux)
difference = ms.stats.paired_difference(ms.accuracy(student, x, y), ms.accuracy(cross, x, y))
print(difference.interval, "p =", difference.p)  # paired by seed

# %% [markdown]
# Which layer suffices? The student's layer, put into the teacher: stitching.

# %%
h = ms.cache_activations(student, x)
for name in ms.hidden_names(teacher):
    logits = ms.run_patched(teacher, x, {name: h[name]})[..., teacher.cfg.digits]
    print(name, (logits.argmax(-1) == y).float().mean(-1))

# %% [markdown]
# Who writes the digits, and are the two sets of output directions entangled?

# %%
attribution = ms.direct_logit_attribution(student, x[:500], tokens=range(10))
attribution  # its values sum over units to the logits

# %%
ms.unembed_projection(student, [10, 11, 12], range(10), metric="centered_cosine").shape  # [seed, auxiliary, digit]

# %% [markdown]
# A study's stored cell: plain dicts, one per seed and arm, hence a pandas frame; its figure is returned, not shown.

# %%
from pathlib import Path

import pandas as pd

from studies import subliminal_accuracy

records = ms.store.read_records(Path("artifacts/subliminal_accuracy/default"))
print(pd.DataFrame(records).groupby("arm")["accuracy"].describe()[["count", "mean", "std"]])
figure = subliminal_accuracy.plot(records)
figure
