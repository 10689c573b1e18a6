"""Networks of runs: read, trained, written."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sartor.core import Architecture, Json, SearchSpace, Task, UserError
from sartor.runs import Run, read_json, write_atomic, write_json
from sartor.spaces.detectors import Detectors
from sartor.spaces.grafts import Grafts
from sartor.spaces.models import architecture_file
from sartor.spaces.windows import Windows
from sartor.workflow.searching import fits_task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sartor.training.recipe import Recipe

logger = logging.getLogger("sartor")
CALIBRATED = 512


def load_architecture(source: Path) -> tuple[SearchSpace, Architecture]:
    """Space and architecture of a run directory or an architecture file. Raises UserError when there is none."""
    space, arch = load_found(source)
    if isinstance(space, Windows):
        elite = shlex.quote(str((source if source.is_dir() else source.parent) / "elite.json"))
        raise UserError(f"{source} found a space, not a network; search in it: sartor search lightnas --space {elite}.")
    return space, arch


def load_found(source: Path) -> tuple[SearchSpace, Architecture]:
    """The same, where it may be a space that was found."""
    from sartor.spaces import from_spec

    file = architecture_file(source) if source.is_dir() else source
    data = read_json(file)
    if not isinstance(data, dict) or "space" not in data:
        raise UserError(f"{file} is not an architecture file; write it with sartor.")
    space = from_spec(data["space"])
    return space, space.from_json(data)


def for_task(space: SearchSpace, task: Task) -> SearchSpace:
    """The space whose networks the task is of: to find things, detectors on networks of `space`, of the images' size.

    Raises UserError where networks of the space do not take such images.
    """
    from sartor.spaces import from_spec
    from sartor.training.detection import Detection

    if not isinstance(task, Detection) or isinstance(space, Detectors):
        return space
    space = from_spec(_sized(space.spec(), task.shape[0], task.shape[1]))
    taken = [tuple(x.shape[1:]) for x in space.inputs(1)]
    if taken != [task.shape]:
        raise UserError(
            f"networks of space {space.name!r} take {taken}, the images are {task.shape}; give ?resolution= to --data."
        )
    return Detectors(space, task.classes)


def _sized(spec: Mapping[str, Json], channels: int, edge: int) -> dict[str, Json]:
    """A space for images of that size, also where it is of another space."""
    own: dict[str, Json] = {"resolution": edge, "channels": channels, "resolutions": [edge]}
    return {
        name: _sized(value, channels, edge) if isinstance(value, dict) and "space" in value else own.get(name, value)
        for name, value in spec.items()
    }


def method_of(source: Path) -> str:
    """The method that a run directory's search used; `lightnas` where there is none."""
    file = source / "result.json"
    data = read_json(file) if source.is_dir() and file.exists() else {}
    return str(data.get("method", "lightnas"))


def train_network(
    space: SearchSpace,
    arch: Architecture,
    task: Task,
    recipe: Recipe,
    run: Run,
    devices: int = 1,
    *,
    tuned: bool = False,
    teacher: nn.Module | None = None,
) -> dict[str, Json]:
    """Train a network; its weights go to `network.safetensors` of the run, beside the architecture.

    devices: how many share every batch, see `training.loop.train`; tuned: begin with the weights that the given model
    came with, instead of from scratch; teacher: its outputs are wanted, too (`training.distil`). Raises UserError for a
    space that is of no given model.
    """
    import torch
    from safetensors.torch import save

    from sartor.spaces.complexity import Complexity
    from sartor.training.distil import Distilled
    from sartor.training.loop import train
    from sartor.training.tasks import guesses

    fits_task(space, task, arch)
    torch.manual_seed(run.torch_seed("weights"))
    network = _begun(space, arch) if tuned else space.network(arch)
    wanted: Task = task
    if teacher is not None:
        wanted = Distilled(task, teacher, share=recipe.distil, temperature=recipe.temperature)
    found = train(network, wanted, recipe, run.stage("train"), devices=devices)
    write_atomic(run.path / "network.safetensors", save({k: v.contiguous() for k, v in network.state_dict().items()}))
    write_json(run.path / "architecture.json", space.to_json(arch))
    macs = float(Complexity(space, "macs")([arch])[0])
    if guesses(found["value"], task, "test"):
        logger.warning("an accuracy of %.1f %% is that of guessing; train longer, or with another lr", found["value"])
    return {
        **found,
        "macs": macs,
        "space": space.spec(),
        "architecture": list(arch),
        "data": task.describe(),
        "input": getattr(task, "normalisation", None),
    }


def _begun(space: SearchSpace, arch: Architecture) -> nn.Module:
    """The network with the weights that the given model came with. Raises UserError for a space that is of none."""
    if not isinstance(space, Grafts):
        raise UserError(f"networks of space {space.name!r} come with no weights; train them from scratch.")
    return space.tuned(arch)


def teacher(word: str, space: SearchSpace) -> nn.Module:
    """Whose outputs are wanted: `model`, the given one as it came, or the run of a training."""
    if word != "model":
        return load_network(Path(word))[2]
    if not isinstance(space, Grafts) or not space.trained:
        raise UserError(f"networks of space {space.name!r} are of no model with weights; give the run of a training.")
    return space.tuned(space.unchanged)


def load_network(source: Path) -> tuple[SearchSpace, Architecture, nn.Module]:
    """The trained network of a `train` run. Raises UserError when there are no weights or they do not fit."""
    from safetensors.torch import load_file

    space, arch = load_architecture(source)
    weights = source / "network.safetensors"
    if not weights.exists():
        raise UserError(f"{source} holds no trained weights; train it first: sartor train {source}.")
    network = space.network(arch)
    try:
        network.load_state_dict(load_file(weights))
    except Exception as error:
        raise UserError(
            f"{weights} does not fit the architecture ({str(error).splitlines()[0]}); train again."
        ) from None
    return space, arch, network


def export_network(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    directory: Path,
    formats: Sequence[str],
    describe: Mapping[str, Json],
    task: Task | None,
) -> dict[str, Json]:
    """`files`, as `export.export` writes a deployed network, and what 8 bits cost.

    task: of `int8`, whose training data calibrate, 512 examples as they are tested, and whose test data grade the file
    (`value_int8`) beside the network (`value`).
    """
    import torch

    from sartor.core.progress import Progress
    from sartor.export import EIGHT, export, run_file

    if task is None:
        return {"files": export(network, inputs, directory, formats, describe)}
    drawn = task.batches("train", size=1, seed=0, epoch=0, plain=True, limit=CALIBRATED)
    examples = [tuple(x.cpu() for x in given) for given, _ in drawn]
    files = export(network, inputs, directory, formats, describe, examples)
    eight, bar = run_file(files[EIGHT]["path"]), Progress("test int8", task.length("test"))

    def shown(*given: Tensor) -> Tensor:
        output = eight(*given)
        bar.advance(len(output))
        return output

    with torch.inference_mode():
        network = network.to(task.device).eval()
        plain, quantised = task.evaluate(network, "test"), task.evaluate(shown, "test")
    bar.close()
    name = task.metric.name
    return {"files": files, "metric": name, "value": plain[name], "value_int8": quantised[name], "split": "test"}


def test_network(space: Grafts, arch: Architecture, task: Task) -> dict[str, Json]:
    """What `train_network` says, of a network with the weights that the given model came with."""
    from sartor.spaces.complexity import Complexity
    from sartor.training.tasks import guesses

    network = space.tuned(arch).to(task.device).eval()
    result = task.evaluate(network, "test")
    value = float(result[task.metric.name])
    if guesses(value, task, "test"):
        logger.warning("as it came, the network has %.1f %% accuracy, as by guessing; are these its data?", value)
    return {
        "metric": task.metric.name,
        "value": value,
        "loss": result["loss"],
        "split": "test",
        "params": sum(p.numel() for p in network.parameters()),
        "macs": float(Complexity(space, "macs")([arch])[0]),
        "space": space.spec(),
        "architecture": list(arch),
        "data": task.describe(),
    }


def collapse_error(source: Path, task: Task) -> float:
    """How far the outputs of a trained network as it is deployed are from those of the network, most over a batch."""
    import torch

    space, _, network = load_network(source)
    inputs, _ = next(iter(task.batches("valid", size=256, seed=0, epoch=0)))
    inputs = tuple(x.cpu() for x in inputs)
    with torch.inference_mode():
        apart: torch.Tensor = space.deploy(network)(*inputs) - network.eval()(*inputs)
    return float(apart.abs().max())
