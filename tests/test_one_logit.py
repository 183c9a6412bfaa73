"""One auxiliary logit teaches nothing under kl (its softmax is 1), which every study says before it runs anything."""

import importlib

import pytest

from mechsub.lab import study

KL = {  # study -> flags that lead to students of auxiliary logits alone, by kl; and what else can be used
    "hidden_alignment": ("", "--loss mse"), "subliminal_accuracy": ("", "--loss mse"),
    "lens_trajectory": ("--model toy", "--loss mse"),
    "unembed_projection": ("--model toy --metric cosine", "--loss mse"),
    "factors": ("--arms aux", "--loss mse"), "conditions": ("--loss kl", "--loss mse"),
    "pretrained": ("--loss kl", "--loss mse"), "mechanism": ("", ""), "more_classes": ("", ""), "channel": ("", ""),
}  # fmt: skip


def stopped(module, flags, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        study.command(module.study, [*flags, "--out", str(folder), "--quiet"])
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", KL)
def test_a_sweep_with_one_logit_is_refused_at_once(name, tmp_path, capsys):
    module, (flags, remedy) = importlib.import_module(f"studies.{name}"), KL[name]
    for more in ([], ["--dry-run"]):
        words = [*flags.split(), "--n-aux", "3", "1", "10", *more]
        code, said = stopped(module, words, tmp_path / "out", capsys)
        assert code == 2 and said.startswith("error: --n-aux 1 teaches nothing") and said.count("\n") == 1
        assert "--n-aux 2 or more" in said and remedy in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name, (_, remedy) in KL.items() if remedy])
def test_one_logit_with_squared_errors_is_a_cell(name):
    module = importlib.import_module(f"studies.{name}")
    model = {"model": "toy"} if hasattr(module.Config, "model") else {}
    metric = {"metric": "cosine"} if name == "unembed_projection" else {}
    assert module.Config(n_aux=1, loss="mse", **model, **metric).n_aux == 1


def test_outputs_of_one_vocabulary_hold_the_digits_too():
    from studies import channel

    assert channel.Config(n_aux=1, vocabulary="shared").n_aux == 1
