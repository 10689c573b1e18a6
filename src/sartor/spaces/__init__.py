"""Search spaces by name: `mobilenet:lightnas?resolution=224`, or a JSON file that holds a specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sartor.core import Json, Registry, SearchSpace, UserError, parse_reference
from sartor.core.restricted import Restricted
from sartor.runs import read_json
from sartor.spaces.channels import Channels
from sartor.spaces.detectors import Detectors
from sartor.spaces.networks import Networks
from sartor.spaces.unfolded import Unfolded
from sartor.spaces.windows import Windows

SPACES: Registry[SearchSpace] = Registry(
    "space",
    {
        "expanded": "sartor.spaces.expanded:Expanded",
        "grafts": "sartor.spaces.grafts:Grafts",
        "mobilenet": "sartor.spaces.mobilenet:MobileNet",
        "shufflenet": "sartor.spaces.shufflenet:ShuffleNet",
        "supertransformer": "sartor.spaces.supertransformer:SuperTransformer",
        "supervit": "sartor.spaces.supervit:SuperViT",
        "uniform": "sartor.spaces.uniform:Uniform",
        "mobilenetv3": "sartor.spaces.mobilenetv3:MobileNetV3",
        "nas-bench-201": "sartor.spaces.nasbench201:NASBench201",
        "nas-bench-macro": "sartor.spaces.nasbench_macro:NASBenchMacro",
        "fbnet": "sartor.spaces.tabled:fbnet",
        "ofa-mobilenetv3": "sartor.spaces.tabled:ofa_mobilenetv3",
        "hat": "sartor.spaces.tabled:hat",
    },
    plugins="sartor.spaces",
)


def get(reference: str, **options: Any) -> SearchSpace:
    """A space from `NAME[:PRESET][?option=value&...]` or from a JSON file; `options` override the reference's.

    Raises UserError for an unknown name, preset or option, or an option out of range.
    """
    if reference.endswith(".json"):
        data = read_json(Path(reference))
        return from_spec(data["space"] if isinstance(data, dict) and isinstance(data.get("space"), dict) else data)
    name, preset, given = parse_reference(reference)
    options = {**given, **options}
    if preset is not None:
        if "preset" in given:
            raise UserError(f"space {reference!r} names two presets; write {name}:{preset}.")
        options["preset"] = preset
    return SPACES.make(name, **options)


def from_spec(spec: Json) -> SearchSpace:
    """Rebuild a space from what `SearchSpace.spec` returned."""
    if not isinstance(spec, dict) or not isinstance(spec.get("space"), str):
        raise UserError("not a space specification: it needs a key 'space'; write it with sartor.")
    try:
        if "base" in spec:
            return Restricted(from_spec(spec["base"]), {int(i): k for i, k in spec["keep"].items()})
        if spec["space"] == "channels":
            return Channels(from_spec(spec["of"]), spec["architecture"], spec["mode"])
        if spec["space"] == "windows":
            return Windows(from_spec(spec["of"]), spec["depths"], spec["widths"])
        if spec["space"] == "detectors":
            return Detectors(from_spec(spec["of"]), spec["classes"])
        if spec["space"] == "unfolded":
            return Unfolded(from_spec(spec["of"]))
        if spec["space"] == "networks":
            return Networks([(from_spec(one["space"]), one["architecture"]) for one in spec["members"]])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"space specification {spec['space']!r} is damaged ({error!r}); write it with sartor."
        ) from None
    return SPACES.make(spec["space"], **{k: v for k, v in spec.items() if k != "space"})
