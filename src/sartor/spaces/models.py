"""Networks that are given: `torchvision:NAME[?option=value]`, `run:DIR`, `FILE.py:FUNCTION[?option=value]`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.core import UserError, parse_reference
from sartor.core.userfile import function_in
from sartor.runs import read_json

if TYPE_CHECKING:
    from torch import nn


_WRAPPED = ("state_dict", "model_state_dict", "model")  # where checkpoints keep a state dict
_PARALLEL = "module."  # before the names of a network that DataParallel trained


@dataclass(frozen=True)
class Model:
    """make: builds the network with fresh weights; trained: file of weights that belong to it, if there are any."""

    make: Callable[[], nn.Module]
    trained: Path | None = None

    def load(self, weights: str | None = None) -> nn.Module:
        """The network with weights of a file, default its own; fresh where it has none.

        Files are .safetensors, or what `torch.save` wrote of a state dict, which may be an entry of a checkpoint
        (`_WRAPPED`). Raises UserError where they do not fit.
        """
        file, network = Path(weights) if weights else self.trained, self.make()
        if file is None:
            return network
        if not file.is_file():
            raise UserError(f"there is no file {file}; check the path of the weights.")
        import torch
        from safetensors.torch import load_file
        from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

        try:
            safe = file.suffix == ".safetensors"
            state: Any = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
            state = next((state[key] for key in _WRAPPED if key in state), state)
            if not any(key.startswith(_PARALLEL) for key in network.state_dict()):
                consume_prefix_in_state_dict_if_present(state, _PARALLEL)
            network.load_state_dict(state)
        except Exception as error:
            said = " ".join(str(error).split()).partition(". ")[0]
            said = said if len(said) <= 160 else f"{said[:157]}..."
            raise UserError(
                f"{file} holds no weights of this network ({said}); give a state dict of it, alone or as one of "
                f"{', '.join(_WRAPPED)}."
            ) from None
        return network


def model(reference: str) -> Model:
    """What a reference means. Raises UserError for one that means nothing, and for what builds no network."""
    kind, name, options = parse_reference(reference)
    if kind == "torchvision" and name:
        return Model(_told(reference, _torchvision(name, options)))
    if kind == "run" and name and not options:
        return _of_run(Path(name))
    if kind.endswith(".py") and name:
        function = function_in(kind, name, "returns an nn.Module")
        return Model(_told(reference, lambda: function(**options)))
    raise UserError(
        f"model {reference!r} is none of torchvision:NAME[?option=value], run:DIR, FILE.py:FUNCTION[?option=value]."
    )


def architecture_file(run: Path) -> Path:
    """Where a finished search or training keeps its network. Raises UserError for a run of neither."""
    file = run / "architecture.json"
    if not file.exists():
        below = [one for name in ("search", "compressed") if (one := run / name / file.name).exists()]
        give = f"give {below[0].parent}" if below else "give the directory of a finished search or training"
        raise UserError(f"{run} holds no architecture.json; {give}.")
    return file


def _told(reference: str, make: Callable[[], Any]) -> Callable[[], nn.Module]:
    from torch import nn

    def told() -> nn.Module:
        try:
            network = make()
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{reference} builds no network ({type(error).__name__}: {str(error).partition(chr(10))[0]}); mend it."
            ) from error
        if not isinstance(network, nn.Module):
            raise UserError(f"{reference} gave {type(network).__name__}; it has to return an nn.Module.")
        return network

    return told


def _torchvision(name: str, options: dict[str, Any]) -> Callable[[], Any]:
    from sartor.core.errors import unknown
    from sartor.data.vision import import_torchvision

    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    return lambda: models.get_model(name, weights=None, **options)


def _of_run(source: Path) -> Model:
    from sartor.spaces import from_spec

    data = read_json(architecture_file(source))
    space = from_spec(data.get("space") if isinstance(data, dict) else None)
    arch, weights = space.from_json(data), source / "network.safetensors"
    return Model(lambda: space.network(arch), weights if weights.exists() else None)
