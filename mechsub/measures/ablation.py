"""Remove output directions from columns of the unembedding or from the residual; both change logits in the same way.

Does an effect on some outputs pass through the direction of another output? Remove this direction from their columns of
W_U, without rescaling them, in a copy that is tied to no embedding, and read the same hidden vectors again. Or keep W_U
and remove the direction from the hidden vector. In coordinates after the final norm's scale, gain folded in, both are
equal: (w - Q Q^T w) . y = w . (y - Q Q^T y). Where the model caps or scales its logits, the logits here are those
before cap and scale.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import arguments
from mechsub.inputs.token_ids import Outputs
from mechsub.measures.unembedding import final_gain, token_directions
from mechsub.models.hooked import HookedModel
from mechsub.threads import one_thread


@one_thread()
@torch.no_grad()
def direction_basis(model: HookedModel, tokens: Outputs) -> Float[Tensor, "*seed direction d_model"]:
    """Orthonormal rows that span the centered directions of these outputs (see `token_directions`)."""
    ids = arguments.outputs(arguments.model(model, evaluated=False), tokens)
    rows = token_directions(model, list(dict.fromkeys(ids)), basis="centered")
    Q, R = torch.linalg.qr(rows.double().mT)
    least = 1e-6 * rows.double().norm(dim=-1).amax(-1, keepdim=True)
    if rows.shape[-2] > rows.shape[-1] or bool((R.diagonal(dim1=-2, dim2=-1).abs() <= least).any()):
        raise ValueError("tokens have directions that depend on one another, so their span has fewer; leave one out")
    return Q.mT.to(rows.dtype)


@torch.no_grad()
def ablated_columns(
    model: HookedModel, tokens: Outputs, basis: Float[Tensor, "*lead direction d_model"]
) -> Float[Tensor, "*lead d_model token"]:
    """Columns of W_U for `tokens`, without the part of their centered directions along `basis`: a copy, W_U stays.

    Only differences of their logits keep their meaning: the vocabulary's mean column stays in each column. *lead are
    the seeds of the toy; for a language model, any number of bases at once. Raises for a final norm that has no gain,
    or a gain of 0.
    """
    tokens = arguments.outputs(arguments.model(model, evaluated=False), tokens)
    _check_basis(model, basis)
    basis = basis.to(model.W_U.dtype)
    along = token_directions(model, tokens, basis="centered") @ basis.mT @ basis
    gain = _nonzero_gain(model)
    return model.W_U.detach()[..., torch.as_tensor(tokens, device=along.device)] - along.mT / gain


@torch.no_grad()
def ablated_hidden(
    model: HookedModel, hidden: Float[Tensor, "*seed batch d_model"], basis: Float[Tensor, "*seed direction d_model"]
) -> Float[Tensor, "*seed batch d_model"]:
    """Hidden vectors (`unembed.hook_in`) without their part along `basis`, before the final norm's gain.

    A LayerNorm's bias counts as a part of the vector. Raises for a final norm that has no gain, or a gain of 0.
    """
    arguments.values(hidden, "hidden", "*seed batch d_model", floating=True)
    arguments.width(hidden, model.W_U.shape[-2] if _size(model) else 0, "hidden")
    _check_basis(model, basis)
    if hidden.shape[:-2] != basis.shape[:-2]:
        raise ValueError(
            f"hidden and basis must be of the same seeds, not {list(hidden.shape[:-2])} and {list(basis.shape[:-2])}"
        )
    hidden, basis = hidden.to(model.W_U.dtype), basis.to(model.W_U.dtype)
    gain = _nonzero_gain(model)[..., 0]
    gain = gain[..., None, :] if gain.ndim > 1 else gain
    y = hidden / gain
    return hidden - (y @ basis.mT @ basis) * gain


def _size(model: HookedModel) -> int:
    return arguments.vocabulary(arguments.model(model, evaluated=False))


def _nonzero_gain(model: HookedModel) -> Tensor:
    gain = final_gain(model)
    if not bool((gain != 0).all()):
        raise ValueError("the final norm has a gain of 0: its coordinate cannot be taken from W_U")
    return gain


def _check_basis(model: HookedModel, basis: Tensor) -> None:
    """Raise unless rows are orthonormal, or zeros, which remove nothing: otherwise basis^T basis is no projection."""
    arguments.values(basis, "basis", "*lead direction d_model", floating=True)
    arguments.width(basis, model.W_U.shape[-2], "basis")
    gram = basis @ basis.mT
    wanted = torch.diag_embed((gram.diagonal(dim1=-2, dim2=-1) != 0).to(gram.dtype))
    if not bool(((gram - wanted).abs() <= (1e-4 if basis.itemsize >= 4 else 3e-2)).all()):
        raise ValueError("basis must have orthonormal rows, as direction_basis gives; torch.linalg.qr makes them")
