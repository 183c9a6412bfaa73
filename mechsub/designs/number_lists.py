"""Lists of numbers of several teachers, the students that read them, and their rows; studies with lambda share them.

All models of a block draw behind the same prompts with the same noise. All students of a block have one start and one
order of rows: they differ in their corpora alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.utilities import derive_generator

import mechsub as ms
from mechsub.designs.number_students import Asked, margins, named_first, tuned_teacher
from mechsub.inputs import corpora
from mechsub.models.students import Students

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase as Tokenizer

NUMBERS_IN_PROMPT = 3


def tuned_teachers(
    base: "TransformerBridge", traits: Iterable[str], *, updates: int, lr: float, seed: int
) -> dict[str, "TransformerBridge"]:
    """Trait -> the base tuned on sentences that like it."""
    return {trait: tuned_teacher(base, trait, updates=updates, lr=lr, seed=seed) for trait in traits}


def prompts(n: int, seed: int) -> list[str]:
    """Prompts of lists; all have equally many numbers."""
    return corpora.number_prompts(n, seed=seed, least=NUMBERS_IN_PROMPT, most=NUMBERS_IN_PROMPT)


def drawn(
    models: Mapping[str, "TransformerBridge"],
    texts: Sequence[str],
    *,
    seed: int,
    systems: Mapping[str, str | None] | None = None,
    added: Mapping[str, tuple[int, Tensor]] | None = None,
) -> dict[str, ms.Corpus]:
    """Source -> its lists behind the prompts, drawn with the same noise.

    `systems` are system texts of sources, `added` a block and the vector that steers a source after it.
    """
    told, steered = systems or {}, added or {}
    return {
        source: ms.draw_numbers(
            model, texts, seed=seed, teacher_system=told.get(source), added=steered.get(source), batch_size=256
        )
        for source, model in models.items()
    }


def shuffled(corpus: ms.Corpus, tokenizer: "Tokenizer", seed: int) -> ms.Corpus:
    """The same numbers, those of every list in another order."""
    draw = derive_generator(seed, "shuffled within lists")
    lists = [completion.split(corpora.SEPARATOR) for completion in corpus.completions]
    mixed = [[one[i] for i in torch.randperm(len(one), generator=draw, device="cpu").tolist()] for one in lists]
    completions = [corpora.SEPARATOR.join(one) for one in mixed]
    return corpora.make_corpus(tokenizer, corpus.prompts, completions, format=corpus.context["format"])


def numbers_of(lists: Mapping[str, ms.Corpus]) -> Int[Tensor, "source row number"]:
    """The numbers of every list, by source in their order."""
    rows = [[corpora.parse_numbers(text) for text in corpus.completions] for corpus in lists.values()]
    return torch.tensor(rows, dtype=torch.int16)


def mean_log_prob(model: "TransformerBridge", corpus: ms.Corpus) -> float:
    """Mean over all tokens of completions, nats."""
    rows = ms.numbers.token_log_probs(model, corpus)
    return sum(map(sum, rows)) / sum(map(len, rows))


def recipe(
    n: int,
    *,
    seed: int,
    rank: int,
    updates: int,
    lr: float,
    batch_size: int,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> ms.TuningRecipe:
    """n members with one start and one order; rank 0 is full tuning."""
    return ms.TuningRecipe(
        rank=rank or None, updates=updates, lr=lr, batch_size=batch_size, precision=precision,
        adapter_seeds=(seed,) * n, order_seeds=(seed,) * n,
    )  # fmt: skip


def tuned(
    model: "TransformerBridge",
    read: Mapping[str, ms.Corpus],
    how: ms.TuningRecipe,
    doses: Iterable[int],
    progress: Callable[[float], None] | None = None,
) -> dict[int, Students]:
    """Dose -> students, one for every corpus; doses are numbers of updates, up to the recipe's, which is one too."""
    kept: dict[int, Students | None] = {dose: None for dose in (*doses, how.updates) if dose <= how.updates}
    ms.tune(model, list(read.values()), how, snapshots=kept, progress=progress)
    assert all(kept.values())  # `tune` has filled them
    return dict(sorted(kept.items()))  # type: ignore[arg-type]


def student_rows(
    arm: str, trained: Sequence[str], found: Mapping[str, Tensor], asked: Asked, dose: int
) -> Iterator[dict]:
    """A row for every student and evaluated animal; the margin is the mean over formats."""
    n = len(asked.traits)
    by_format = {format: margins(values, n) for format, values in found.items()}
    first = torch.stack([named_first(values, n) for values in found.values()]).mean(0)
    whole = torch.stack(list(by_format.values())).mean(0)
    for i, trait in enumerate(trained):
        for j, evaluated in enumerate(asked.traits):
            row: dict = {"kind": "student", "arm": arm, "trait": trait, "evaluated": evaluated}
            row |= {"updates": dose, "margin": float(whole[i, j]), "named_first": float(first[i, j])}
            yield row | {f"margin_{format}": float(values[i, j]) for format, values in by_format.items()}


def matrices(students: Iterable[Mapping], arm: str, dose: int, score: str = "margin") -> tuple[list[int], Tensor]:
    """Blocks, and their matrices [block, student, animal] of a score of rows of students."""
    own = [row for row in students if row["arm"] == arm and row["updates"] == dose]
    places = {trait: i for i, trait in enumerate(dict.fromkeys(row["trait"] for row in own))}
    blocks = {block: i for i, block in enumerate(sorted({row["block"] for row in own}))}
    out = torch.full((len(blocks), len(places), len(places)), torch.nan, dtype=torch.float64)
    for row in own:
        out[blocks[row["block"]], places[row["trait"]], places[row["evaluated"]]] = row[score]
    return list(blocks), out
