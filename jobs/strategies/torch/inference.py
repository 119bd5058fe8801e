"""Ways to call a PyTorch model outside of PyTorch's eager mode: as a TorchScript, as an ONNX model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def frozen(net: Any, example: Any) -> Any:
    """`net` traced on `example` [b, c, h, w], with its weights as constants."""
    import torch

    with torch.no_grad():
        return torch.jit.freeze(torch.jit.trace(net, example))


def onnx_session(net: Any, example: Any, threads: int) -> Callable[[Any], NDArray[np.floating]]:
    """`net` exported for inputs of the shape of `example`, in ONNX Runtime; gives NumPy logits."""
    import onnxruntime
    import torch

    program = torch.onnx.export(net, (example,), dynamo=True, verbose=False)
    assert program is not None  # it is None only where a file was asked for
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()

    def call(images: Any) -> NDArray[np.floating]:
        (logits,) = session.run(None, {taken.name: images.numpy()})
        found: NDArray[np.floating] = logits
        return found

    return call
