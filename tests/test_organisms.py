"""The organisms that the repository ships: whole, small, of their stored cells, and able to do what they are for."""

from pathlib import Path

import pytest
import torch

from mechsub import sources
from mechsub.inputs import prompts, words
from mechsub.lab import store
from mechsub.models import language
from studies import train_organism
from studies.train_organism import competence, shipping, tokenizer

ROOT = Path(__file__).parent.parent
ORGANISMS = [f"{tokens}-{name}" for tokens in (1110, 110) for name in ("base", "instruct")]
LIMIT = 14_000_000  # bytes of a model


def cells():
    """number tokens -> the stored cell that its pair was trained in; pairs of other seeds are not shipped."""
    folders = (path.parent for path in (ROOT / "artifacts" / "train_organism").glob("*/provenance.json"))
    configs = {cell: store.read_provenance(cell)["config"] for cell in folders}
    return {config["number_tokens"]: cell for cell, config in configs.items() if config["seed"] == 0}


@pytest.mark.parametrize("organism", ORGANISMS)
def test_files_are_those_of_the_stored_training(organism):
    folder, (tokens, name) = ROOT / "organisms" / organism, organism.split("-")
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert {path.name for path in folder.iterdir()} == {*sums, "SHA256SUMS"}
    assert all(store.sha256((folder / file).read_bytes()) == found for file, found in sums.items())
    assert sum((folder / file).stat().st_size for file in sums) < LIMIT
    cell = cells()[tokens]
    assert store.read_provenance(cell)["weights_sha256"][name] == sums["model.safetensors"]
    card = (folder / "README.md").read_text()
    cfg = train_organism.Config(**store.read_provenance(cell)["config"])
    assert card == shipping.card(name, cell, cfg, sums["model.safetensors"])
    assert "What it can and cannot show" in card and "sha256 of the package" in card


@pytest.mark.parametrize("organism", ORGANISMS)
def test_pairs_of_another_seed_are_there_by_their_sums(organism):
    """Their cells are stale when other models stand in that folder, and not where none does."""
    tokens, name = organism.split("-")
    (cell,) = (ROOT / "artifacts" / "train_organism").glob(
        "seed=1" if tokens == "1110" else "number_tokens=110__seed=1"
    )
    sums = sources.today(str(ROOT / "organisms" / "seed-1" / organism))
    assert sums["model.safetensors"] == store.read_provenance(cell)["weights_sha256"][name]
    assert {"config.json", "tokenizer.json"} < sums.keys() and "README.md" not in sums


@pytest.mark.parametrize("organism", ORGANISMS)
def test_it_loads_and_says_what_hugging_face_says(organism):
    from transformers import AutoModelForCausalLM

    folder = str(ROOT / "organisms" / organism)
    model = language.load_language_model(folder)
    eager = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    wording = prompts.WORDINGS[0]
    ids = prompts.prompt(
        model.tokenizer, wording.question, system=wording.love("087", "number"), answer=wording.answer, format="auto"
    )[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids), eager(ids).logits, atol=2e-4, rtol=1e-4)
    n_numbers, width = int(organism.split("-")[0]), model.cfg.d_model
    known = prompts.encode(model.tokenizer, words.numbers())
    assert sum(len(ids) == 1 for ids in known) == n_numbers
    assert (n_numbers > width) == (n_numbers == 1110)
    animals = [f" {name}" for name in tokenizer.animals()]
    assert len(prompts.single_tokens(model.tokenizer, animals)) == len(animals)


@pytest.mark.parametrize("organism", [name for name in ORGANISMS if "instruct" in name])
def test_an_instruct_model_loves_what_it_is_told_to(organism):
    model = language.load_language_model(str(ROOT / "organisms" / organism))
    share = competence.following(model.original_model, model.tokenizer, prompts.WORDINGS[0], "chat")
    assert share > 0.5  # by chance below 0.01
