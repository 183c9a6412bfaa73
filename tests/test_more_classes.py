"""studies.more_classes, for real with two seeds and narrow networks, where Fashion-MNIST is at hand."""

import pytest
import torch

import mechsub as ms
from mechsub.inputs import images as data
from mechsub.lab import store, study
from studies import more_classes

SMALL = ["--n-seeds", "2", "--d-model", "64", "--n-aux", "40", "--n-samples", "4000", "--n-images", "6000"]
SMALL += ["--epochs", "12"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    try:
        data.fashion_mnist("test")
    except FileNotFoundError:
        pytest.skip("Fashion-MNIST is not on this machine")
    folder = tmp_path_factory.mktemp("more_classes")
    command = [*SMALL, "--out", str(folder)]
    study.command(more_classes.study, command)
    return store.read_records(next((folder / "more_classes").glob("*/provenance.json")).parent)


def test_teachers_know_both_data_sets(rows):
    assert {(r["arm"], r["member"]) for r in rows} == {(arm, i) for arm in more_classes.TITLES for i in (0, 1)}
    for r in rows:
        assert r["classes"] == list(range(20)) and r["kappa"] == pytest.approx((r["accuracy"] - 0.05) / 0.95)
        assert r["accuracy"] == pytest.approx((r["digits"] + r["clothes"]) / 2)  # 10,000 test images each
        assert r["sorted"] >= r["accuracy"]
        if r["arm"] == "teacher":
            assert min(r["digits"], r["clothes"]) > 0.3 and r["sorted"] > 0.8


def test_the_table_and_the_figure_have_every_arm(rows):
    table = study.table_of(more_classes.study, rows, {})
    above = "auxiliary logits of noise, above the null"
    assert [r["arm"] for r in table if "arm" in r] == [*more_classes.TITLES.values(), above]
    assert {"recentred", "recentred kappa", "recentred sorted", "prior matched kappa"} <= table[0].keys()
    assert sum("verdict" in row for row in table) == 3  # of five entries: no sweep of classes, nor of logits
    assert len(more_classes.plot(rows).data) == 2 * len(more_classes.TITLES)
    swept = more_classes.plot(rows + [r | {"n_classes": 5} for r in rows])
    assert swept.layout.yaxis.title.text == "recentred kappa on test images"


def test_scores_that_the_first_seed_has_not_are_shown(rows):
    """A seed whose classes are all of one data set has none of digits, clothes and sorted."""
    lacking = {f"{more}{of}" for more in ("", "recentred_") for of in ("digits", "clothes", "sorted")}
    first = [{k: v for k, v in r.items() if k not in lacking} if r["member"] == 0 else r for r in rows]
    third = [r | {"member": 2} for r in rows if r["member"] == 1]
    assert {f.key for f in more_classes.findings(first + third)} == {f.key for f in more_classes.findings(rows)}


def test_subsets_are_nested_random_and_those_of_the_seed():
    few, many = more_classes.classes(3, 5), more_classes.classes(3, 10)
    assert set(few) < set(many) < set(more_classes.classes(3, 20)) == set(range(20))
    assert few == sorted(few) and few != more_classes.classes(4, 5)


def test_images_of_the_chosen_classes_with_places_as_labels():
    labels = torch.arange(40) % 20
    images = labels[:, None].float()
    seen, places = more_classes._only(images, labels, [2, 7, 19])
    assert torch.tensor([2, 7, 19])[places].tolist() == seen[:, 0].tolist() and len(seen) == 6
    some, _ = more_classes._only(images, labels, [2, 7, 19], 4, seed=1)
    assert len(some) == 4 and set(some[:, 0].tolist()) <= {2, 7, 19}


def test_scores_of_a_planted_model_that_only_sorts():
    """Weights that say digit 0 for every digit and the first sort of clothes for all clothes."""
    chosen = [0, 4, 10, 15]
    model = ms.HookedMLP(ms.MLPConfig(d_in=1, d_model=2, n_layers=1, n_classes=4), seeds=(0,))
    W_U = torch.zeros(1, 2, 7)
    W_U[0, 0, 0], W_U[0, 1, 2] = 1, 1
    model = model.replace({"blocks.0.W": torch.tensor([[[-1.0, 1.0]]]), "unembed.W_U": W_U})
    places = torch.arange(400) % 4
    images = torch.where(places < 2, -1.0, 1.0)[:, None]
    found = more_classes._scores(model, images, places, images, chosen)
    raw = {"accuracy": 0.5, "kappa": pytest.approx(1 / 3), "digits": 0.5, "clothes": 0.5, "sorted": 1.0}
    assert found.items() >= raw.items() and found["mean_logits"] == [0.5, 0.0, 0.5, 0.0]
    alone = more_classes._scores(model, images, places, images, [0, 1, 2, 3])  # no clothes among the classes
    assert set(alone) == {
        *("accuracy", "kappa", "recentred", "recentred_kappa", "prior_matched", "prior_matched_kappa", "mean_logits"),
    }


def test_an_offset_hides_nothing_from_recentred_scores():
    """The same model with an offset that makes it say one class always."""
    chosen = [0, 4, 10, 15]
    model = ms.HookedMLP(ms.MLPConfig(d_in=4, d_model=4, n_layers=1, n_classes=4), seeds=(0,))
    head = torch.cat([torch.eye(4), torch.zeros(4, 3)], 1)[None]
    offset = torch.zeros(1, 7).index_fill(1, torch.tensor([2]), 9.0)
    model = model.replace({"blocks.0.W": torch.eye(4)[None], "unembed.W_U": head, "unembed.b_U": offset})
    places = torch.arange(400) % 4
    images = torch.eye(4)[places]
    found = more_classes._scores(model, images, places, images, chosen)
    assert (found["accuracy"], found["recentred"], found["prior_matched"]) == (0.25, 1.0, 1.0)
    assert (found["recentred_kappa"], found["recentred_clothes"], found["sorted"]) == (1.0, 1.0, 0.5)


REFUSED = [
    (["--n-classes", "1"], "must be 2 to 20"),
    (["--n-classes", "21"], "must be 2 to 20"),
    (["--n-classes", "3"], "more than 3 classes surely have"),
    (["--n-images", "19"], "at least --n-classes"),
    (["--n-aux", "0"], "not an integer >= 1"),
    (["--n-aux", "1"], "softmax of one logit"),
    (["--n-seeds", "1"], "an integer >= 2"),
    (["--d-model", "900000"], "are needed"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_impossible_combinations_are_one_line_before_anything_is_trained(refused, words, says):
    assert says in refused(more_classes, words)
