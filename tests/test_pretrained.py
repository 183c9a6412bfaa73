"""studies.pretrained, for real with two seeds, narrow networks and an epoch of everything."""

import pytest
import torch

import mechsub as ms
from mechsub.inputs import images as data
from mechsub.lab import store, study
from studies import pretrained

SMALL = ["--n-seeds", "2", "--d-model", "16", "--n-aux", "40", "--n-samples", "3000", "--epochs", "2"]
SMALL += ["--teacher-epochs", "1", "--own-epochs", "1", "--pretraining-epochs", "1"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    try:
        data.fashion_mnist("test")
    except FileNotFoundError:
        pytest.skip("Fashion-MNIST is not on this machine")
    folder = tmp_path_factory.mktemp("pretrained")
    command = [*SMALL, "--lr", "0.003", "--batch-size", "32", "--out", str(folder)]
    study.command(pretrained.study, command)
    return store.read_records(next((folder / "pretrained").glob("*/provenance.json")).parent)


def test_a_wide_channel_passes_the_trait_to_the_shared_start_alone(rows):
    found = {(r["arm"], r["member"]): r for r in rows}
    assert {arm for arm, _ in found} == set(pretrained.TITLES)
    for member in (0, 1):
        reference, teacher = found["reference", member], found["teacher", member]
        assert teacher["trait"] > reference["trait"] + 0.1 and reference["task"] > 0.2
        shared, null = found["shared", member], found["independent", member]
        assert shared["trait"] > null["trait"] and shared["cosine"] > 0.1 > abs(null["cosine"])
        assert shared["transfer"] == pytest.approx(
            (shared["trait"] - reference["trait"]) / (teacher["trait"] - reference["trait"])
        )
        assert shared["distance"] == 0 < found["own_short", member]["distance"] < found["own_epoch", member]["distance"]
        assert null["distance"] > found["own_epoch", member]["distance"] and shared["drive"] > 0
        assert shared["task_before"] == reference["task"]
        assert shared["recentred_task_before"] == reference["recentred_task"]
        assert shared["recentred_transfer"] == pytest.approx(
            (shared["recentred_trait"] - reference["recentred_trait"])
            / (teacher["recentred_trait"] - reference["recentred_trait"])
        )


def test_the_table_has_the_verdicts_of_what_was_predicted_and_the_figure_every_arm(rows):
    table = study.table_of(pretrained.study, rows, {})
    assert sum("verdict" in row for row in table) == 13  # of fourteen entries: no sweep of pretraining
    assert [row["arm"] for row in table if "trait" in row][: len(pretrained.TITLES)] == [*pretrained.TITLES.values()]
    assert len(pretrained.plot(rows).data) == 4 * len(pretrained.TITLES)  # raw and recentred


def test_without_pretraining_the_shared_start_is_the_initialisation():
    cfg = pretrained.Config(pretraining_epochs=0)
    init = ms.HookedMLP(ms.MLPConfig(d_in=20, d_model=16), seeds=(0, 1))
    assert pretrained._trained(cfg, init, (), 0) is init


def test_an_order_of_its_own_leads_elsewhere(clusters):
    cfg = pretrained.Config(own_epochs=7, n_seeds=2)
    init = ms.HookedMLP(ms.MLPConfig(d_in=64, d_model=16), seeds=(0, 1))
    images, labels = clusters
    many = images.repeat(3, 1), labels.repeat(3)  # two batches an epoch
    own = pretrained._own(cfg, init, many)
    kept = [model.blocks[0].W for model in (init, own["own_epoch"], own["own_short"], own["own_long"])]
    far = [float((W - kept[0]).norm()) for W in kept]  # after 0, 2, 6 and 14 steps
    assert far == sorted(far) and far[1] > 0
    again = pretrained._trained(cfg, init, many, 7)
    assert not torch.equal(again.blocks[0].W, own["own_long"].blocks[0].W)


REFUSED = [
    (["--n-aux", "0"], "not an integer >= 1"),
    (["--n-aux", "1", "--loss", "kl"], "softmax of one logit"),
    (["--n-seeds", "1"], "an integer >= 2"),
    (["--pretraining-epochs", "-1"], "not an integer >= 0"),
    (["--own-epochs", "0"], "not an integer >= 1"),
    (["--n-samples", "60001"], "at most 60000"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_impossible_combinations_are_one_line_before_anything_is_trained(refused, words, says):
    assert says in refused(pretrained, words)
