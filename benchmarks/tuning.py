"""Students stacked over one base against the same ones, one by one, through peft: seconds of the processor, as a ratio.

    python benchmarks/tuning.py [--n-students 16] [--updates 3] [--model organisms/1110-instruct]

Both sides read the same rows in the same order, in fp32, and end with the same updates (the largest difference is
printed). peft's side is written as its users write it: padded batches, labels of -100 outside completions. The sides
run in turn, and seconds are those of the processor, so that other work counts little. Nothing is asserted.
"""

import argparse
import copy
import time

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-students", type=int, default=16)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--model", default="organisms/1110-instruct")
    args = parser.parse_args()
    import mechsub as ms
    from mechsub.inputs import corpora
    from mechsub.training.tuning import TuningRecipe, tune

    model = ms.load_language_model(args.model)
    generator = torch.Generator().manual_seed(0)
    lists = [", ".join(map(str, torch.randint(100, 1000, (8,), generator=generator).tolist())) for _ in range(256)]
    corpus = corpora.make_corpus(model.tokenizer, corpora.number_prompts(256), lists)
    recipe = TuningRecipe(updates=args.updates, adapter_seeds=tuple(range(args.n_students)))
    snapshots: dict = {0: None}
    seconds = {"peft": 0.0, "mechsub": 0.0}
    started = time.process_time()
    tuned = tune(model, corpus, recipe, snapshots=snapshots)
    seconds["mechsub"] = time.process_time() - started
    worst = 0.0
    for member in range(args.n_students):
        started = time.process_time()
        theirs = by_peft(model, corpus, recipe, snapshots[0], member, padded_loss)
        seconds["peft"] += time.process_time() - started
        worst = max(worst, *(float((tuned.update(n)[member] - value).abs().max()) for n, value in theirs.items()))
    done = f"{args.updates} updates of {recipe.batch_size} rows"
    print(f"{args.n_students} students, {done}, fp32, torch {torch.__version__}")
    print(", ".join(f"{name} {value:.1f} s of the processor" for name, value in seconds.items()))
    print(f"mechsub takes {seconds['mechsub'] / seconds['peft']:.2f} of peft's; updates differ by at most {worst:.1e}")


def by_peft(model, corpus, recipe, start, member: int, loss) -> dict:
    """The update of one student through peft, which loss(model, corpus, rows) trains."""
    import peft

    from mechsub.models.students import plain_model
    from mechsub.training.tuning import batch_rows

    config = peft.LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=list(start.A), lora_dropout=0.0)
    tuned = peft.get_peft_model(copy.deepcopy(plain_model(model)), config)
    weights = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
    for name, A in start.A.items():
        weights[f"base_model.model.{name}.lora_A.default.weight"].data.copy_(A[member])
    optimizer = torch.optim.AdamW(
        weights.values(), recipe.lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay
    )
    for step in range(recipe.updates):
        rows = batch_rows(len(corpus), recipe, recipe.orders[member], step)
        loss(tuned, corpus, rows).backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
    names = {name: [f"base_model.model.{name}.lora_{kind}.default.weight" for kind in "BA"] for name in start.A}
    scale = recipe.alpha / recipe.rank
    return {f"{n}.weight": scale * weights[B].detach() @ weights[A].detach() for n, (B, A) in names.items()}


def padded_loss(model, corpus, rows) -> torch.Tensor:
    return model(**padded(corpus, rows)).loss


def padded(corpus, rows) -> dict:
    """A batch as Hugging Face's collators make it."""
    pairs = [(corpus.prompt_ids[row], corpus.completion_ids[row]) for row in rows]
    length = max(len(a) + len(b) for a, b in pairs)
    ids, labels, mask = [], [], []
    for prompt, completion in pairs:
        rest = length - len(prompt) - len(completion)
        ids.append([*prompt, *completion, *[0] * rest])
        labels.append([-100] * len(prompt) + list(completion) + [-100] * rest)
        mask.append([1] * (length - rest) + [0] * rest)
    return {key: torch.tensor(v) for key, v in (("input_ids", ids), ("labels", labels), ("attention_mask", mask))}


if __name__ == "__main__":
    main()
