"""Static quantisation to 8 bits by ONNX Runtime: quantise-dequantise pairs around operators that have 8-bit kernels.

Weights are int8, with a scale for each channel; activations uint8, with a scale for each tensor: what x86 processors
multiply fastest. Before AVX512-VNNI their sums of pairs may saturate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from sartor.export.graphs import quiet

if TYPE_CHECKING:
    from onnx import ModelProto

_SAME = 2.0


def quantised(model: ModelProto, examples: Iterable[tuple[Tensor, ...]] | None = None) -> ModelProto:
    """The model with 8-bit weights and activations; it is given away.

    examples: inputs, batch first as the model wants them, which calibrate: an activation's range is from its least to
    its largest value on these. None: the same range for all, to measure with. How long a network takes does not depend
    on the range, and parts that were quantised alone agree about their joint: stitched, they are optimised to what the
    network quantised as a whole is.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    operators = sorted({*QDQRegistry, *QLinearOpsRegistry})
    if examples is None:
        names = [value.name for value in model.graph.input] + [
            name for node in model.graph.node for name in node.output
        ]
        low, high = np.float32(-_SAME), np.float32(_SAME)
        ranges = {name: TensorData(lowest=low, highest=high) for name in names}
        known = TensorsData(CalibrationMethod.MinMax, ranges)
    else:
        known = _ranges(model, examples, operators)
    with quiet():
        quantiser = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=known,
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=operators,
            extra_options={},
        )
        quantiser.quantize_model()
    written: ModelProto = quantiser.model.model
    return written


def _ranges(model: ModelProto, examples: Iterable[tuple[Tensor, ...]], operators: list[str]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.fed = ({f"input{k}": x.cpu().numpy() for k, x in enumerate(inputs)} for inputs in examples)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.fed, None)

    with tempfile.TemporaryDirectory(prefix="sartor-") as scratch, quiet():
        plain, augmented = Path(scratch) / "plain.onnx", Path(scratch) / "augmented.onnx"
        plain.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(plain, operators, augmented_model_path=str(augmented))
        calibrator.collect_data(Reader())
        return calibrator.compute_data()
