"""The evaluator of the onnx package."""

import common
from onnx.reference import ReferenceEvaluator


def load(path, feeds):
    evaluator = ReferenceEvaluator(str(path))
    given = {name: feeds[name] for name in evaluator.input_names if name in feeds}
    return lambda: dict(zip(evaluator.output_names, evaluator.run(None, given), strict=True))


if __name__ == "__main__":
    common.main(load)
