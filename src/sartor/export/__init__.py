"""Networks for use without sartor: ONNX, torch.export, safetensors with JSON; each verified against its source."""

from sartor.export.files import EIGHT, FORMATS, export, run_file
from sartor.export.graphs import onnx_model, onnx_models, stitch
from sartor.export.quantise import quantised

__all__ = ["EIGHT", "FORMATS", "export", "onnx_model", "onnx_models", "quantised", "run_file", "stitch"]
