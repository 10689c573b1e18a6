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

_SAME = (np.float32(0), np.float32(2))
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantised(
    model: ModelProto, examples: Iterable[tuple[Tensor, ...]] | None = None, *, part: bool = False
) -> ModelProto:
    """The model with 8-bit weights and activations; it is given away.

    examples: inputs, batch first as the model wants them, which calibrate: an activation's range is from its least to
    its largest value on these. None: the same range for all, to measure with. How long a network takes does not depend
    on the range, if it is one from 0, as that of a ReLU is, which then vanishes here, too; and parts that were
    quantised alone agree about their joint: stitched, they are optimised to what the network quantised as a whole is.
    part: another part follows. What else stands behind the last weights keeps 32 bits: the boxes and scores of a
    detector, which end in one tensor, are of other sizes.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    operators = sorted({*QDQRegistry, *QLinearOpsRegistry})
    if examples is None:
        names = [value.name for value in model.graph.input] + [
            name for node in model.graph.node for name in node.output
        ]
        ranges = {name: TensorData(lowest=_SAME[0], highest=_SAME[1]) for name in names}
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
            nodes_to_exclude=[] if part else _behind_weights(model),
            op_types_to_quantize=operators,
            extra_options={},
        )
        quantiser.quantize_model()
    written: ModelProto = quantiser.model.model
    return written


def _behind_weights(model: ModelProto) -> list[str]:
    """Names of the nodes without weights from which none with weights is reached."""
    leads: dict[str, bool] = {}  # by tensor: whether one with weights reads it, or what comes of it
    out = []
    for node in reversed(model.graph.node):  # which are in the order of execution
        mine = node.op_type in _WEIGHTED or any(leads.get(name, False) for name in node.output)
        leads |= {name: mine or leads.get(name, False) for name in node.input}
        if not mine:
            out.append(node.name)
    return out


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
