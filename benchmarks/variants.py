"""Other ways to make all maps of a network, by the prefix of a method's name in the study of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

import fgonnx
from fgonnx import files


@dataclass(frozen=True)
class Variant:
    """A way to make maps, of every method.

    Attributes
    ----------
    backward : {"gradient", "libra", "attnlrp"}
        What goes back through the network.
    centred : bool
        Whether scores are those of the network less their mean over classes.
    unfit : tuple of str
        Measures of the score itself, which is another one.
    """

    backward: str = "gradient"
    centred: bool = False
    unfit: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """Further arguments of `fgonnx evaluate`."""
        return () if self.backward == "gradient" else ("--backward", self.backward)

    def idle(self, model: Path) -> str:
        """Return why it changes nothing about a network; "" where it does."""
        if self.backward == "gradient" or changed_by(model, self.backward):
            return ""
        return f"the network has no operators that the {self.backward} backward pass treats otherwise"

    def model(self, model: Path, folder: Path) -> Path:
        """Return the file that is explained, written into a folder if need be."""
        return centred(model, folder) if self.centred else model


VARIANTS: Mapping[str, Variant] = {
    "": Variant(),
    "libra/": Variant("libra"),
    "attnlrp/": Variant("attnlrp"),
    "centred/": Variant(centred=True, unfit=("pixel-perturbation", "sensitivity-n", "part-removal")),
}


def prefix(method: str) -> str:
    """Return the prefix of a method's name, "" if it has none."""
    return next((p for p in VARIANTS if p and method.startswith(p)), "")


def changed_by(model: Path, backward: str) -> bool:
    """Tell whether another backward pass of a network differs from the gradient."""
    plain, other = (fgonnx.rewrite(model, backward=how).graph.node for how in ("gradient", backward))
    return [(node.op_type, *node.input) for node in plain] != [(node.op_type, *node.input) for node in other]


def centred(model: Path, folder: Path) -> Path:
    """Write a classifier whose scores are less their mean over classes, the second axis; probabilities are the same.

    As gradients are linear, a score is then explained against the mean of all: with n classes, that is a share of
    (n - 1) / n of its contrast against the mean of the others.
    """
    path = folder / f"{model.stem}-centred.onnx"
    if not path.exists():
        proto = onnx.load(model)
        graph = proto.graph
        last = next(node for node in graph.node if graph.output[0].name in node.output)
        softmax = last.op_type == "Softmax"
        at = list(graph.node).index(last) if softmax else len(graph.node)
        scores, result = ("centred/scores", "centred") if softmax else ("centred/scores", graph.output[0].name)
        if softmax:
            scores = last.input[0]
            last.input[0] = result
        else:
            for i, name in enumerate(last.output):
                if name == result:
                    last.output[i] = scores
        opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
        axes = {} if opset >= 18 else {"axes": [1]}
        inputs = [scores, "centred/axes"] if opset >= 18 else [scores]
        if opset >= 18:
            graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "centred/axes"))
        graph.node.insert(at, helper.make_node("ReduceMean", inputs, ["centred/mean"], keepdims=1, **axes))
        graph.node.insert(at + 1, helper.make_node("Sub", [scores, "centred/mean"], [result]))
        with files.replacing(path) as temporary:
            onnx.save(proto, temporary)
    return path
