"""Fitted scores: what a measured number will be, from the choices alone."""

from __future__ import annotations

from pathlib import Path

from sartor.core import Registry, SearchSpace, UserError
from sartor.predictors.base import Predictor, read_header

__all__ = ["PREDICTORS", "Predictor", "load", "read_header"]

PREDICTORS: Registry[Predictor] = Registry(
    "predictor",
    {
        "ridge": "sartor.predictors.ridge:Ridge",
        "lookup": "sartor.predictors.lookup:Lookup",
        "mlp": "sartor.predictors.mlp:MLP",
        "pairs": "sartor.predictors.pairs:Pairs",
        "svm": "sartor.predictors.svm:SVM",
        "gp": "sartor.predictors.gp:GP",
        "gnn": "sartor.predictors.gnn:GNN",
        "gnn-plain": "sartor.predictors.gnn:PlainGNN",
        "gcn": "sartor.predictors.gnn:GCN",
    },
)


def load(path: Path | str, *, space: SearchSpace, target_id: str | None = None) -> Predictor:
    """A predictor that `save` wrote, for this space and, where one is given, this target.

    Raises UserError when the file is missing or damaged, or was fitted on another space or target.
    """
    path = Path(path)
    header = read_header(path)
    if header["space_id"] != space.id:
        raise UserError(
            f"predictor {path} was fitted on space {header['space']['space']!r} ({header['space_id']}), not on "
            f"{space.name!r} ({space.id}); give that space or fit a predictor for this one."
        )
    if target_id is not None and header["target_id"] != target_id:
        raise UserError(
            f"predictor {path} was fitted on target {header['target_id']!r}, not on {target_id!r}; "
            "give that target or fit a predictor for this one."
        )
    try:
        predictor = PREDICTORS.make(header["predictor"], **header["hyper"])
        predictor.restore(path, header, space)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); fit it again.") from None
    return predictor
