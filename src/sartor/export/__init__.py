"""Networks for use without sartor: ONNX, torch.export, safetensors with JSON; each verified against its source."""

from sartor.export.files import FORMATS, export
from sartor.export.graphs import onnx_model, onnx_models, stitch
from sartor.export.quantise import quantised

__all__ = ["FORMATS", "export", "onnx_model", "onnx_models", "quantised", "stitch"]
