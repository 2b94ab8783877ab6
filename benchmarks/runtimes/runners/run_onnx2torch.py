"""The file turned into a torch module."""

import sys
from types import ModuleType

import common
import onnx
import torch

for name in ("torchvision", "torchvision.ops"):  # imported for two operators of detectors that no model here has
    sys.modules[name] = ModuleType(name)
    sys.modules[name].roi_align = sys.modules[name].nms = None
from onnx2torch import convert  # noqa: E402


def load(path, feeds):
    torch.set_num_threads(1)
    proto = onnx.load(path)
    module = convert(proto).eval()
    given = [torch.from_numpy(feeds[v.name]) for v in proto.graph.input]
    names = [v.name for v in proto.graph.output]

    def run():
        with torch.no_grad():
            found = module(*given)
        return {
            n: v.numpy() for n, v in zip(names, found if isinstance(found, (list, tuple)) else [found], strict=True)
        }

    return run


if __name__ == "__main__":
    common.main(load)
