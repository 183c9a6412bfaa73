import pytest
import torch
from conftest import generator

import mechsub as ms
from mechsub.measures import class_offsets

CFG = ms.MLPConfig(d_in=20, d_model=40, n_classes=5, n_aux=2)
X = torch.randn(400, 20, generator=generator(1))
OTHER = torch.randn(1000, 20, generator=generator(2))


@pytest.fixture(scope="module")
def model():
    return ms.HookedMLP(CFG, seeds=range(3))


def shifted(model, by):
    """The model with these numbers, [seed, class], added to its digit logits."""
    return model.replace({"unembed.b_U": model.unembed.b_U + torch.nn.functional.pad(by, (0, CFG.n_aux))})


def test_a_planted_offset_is_undone_and_only_raw_accuracy_sees_it(model):
    """Labels are the recentred network's own answers: recentred accuracy is 1 whatever was added."""
    centred = shifted(model, -ms.mean_offset(model, OTHER))
    labels = centred(X)[0, :, CFG.digits].argmax(-1)
    planted = shifted(centred, 3 * torch.randn(3, 5, generator=generator(3)))
    found = ms.mean_offset(planted, OTHER) - ms.mean_offset(centred, OTHER)
    assert torch.allclose(found, planted.unembed.b_U[:, :5] - centred.unembed.b_U[:, :5], atol=1e-5)
    scores = ms.accuracies(planted, X, labels, OTHER)
    assert float(scores["recentred"][0]) == 1 and float(scores["raw"][0]) < 0.5
    before = ms.accuracies(centred, X, labels, OTHER)
    for name in ("recentred", "prior_matched"):
        assert torch.equal(scores[name], before[name]), name


def test_raw_is_accuracy(model):
    labels = torch.arange(400) % 5
    assert torch.equal(ms.accuracies(model, X, labels, OTHER)["raw"], ms.accuracy(model, X, labels))


def test_an_untrained_network_is_at_chance_by_every_score(model):
    labels = torch.randint(5, (400,), generator=generator(4))
    for scores in ms.accuracies(model, X, labels, OTHER).values():
        assert (scores - 0.2).abs().max() < 0.08


def test_prior_offset_makes_classes_equally_frequent(model):
    planted = shifted(model, 2 * torch.randn(3, 5, generator=generator(5)))
    answers = (planted(OTHER)[..., CFG.digits] - ms.prior_offset(planted, OTHER)[:, None]).argmax(-1)
    shares = torch.stack([(answers == k).double().mean(-1) for k in range(5)])
    assert (shares - 0.2).abs().max() <= 0.005
    with pytest.raises(ValueError, match="4 images cannot be shared out among 5 classes"):
        class_offsets.prior_offset(model, OTHER[:4])


def test_accuracies_are_those_of_the_logits(model):
    labels = torch.arange(400) % 5
    logits, others = (model(x)[..., CFG.digits] for x in (X, OTHER))
    of_logits, of_model = class_offsets.logit_accuracies(logits, labels, others), ms.accuracies(model, X, labels, OTHER)
    assert {name: value.tolist() for name, value in of_logits.items()} == {
        name: value.tolist() for name, value in of_model.items()
    }


def test_members_do_not_see_each_other(model):
    alone = class_offsets.prior_offset(model.select([1]), OTHER)
    assert torch.allclose(alone[0], class_offsets.prior_offset(model, OTHER)[1], atol=1e-5)
