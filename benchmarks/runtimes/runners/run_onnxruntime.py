"""ONNX Runtime, CPU provider or that of the environment variable PROVIDER.

With the environment variable ORT_FORMAT the model is saved as .ort, and that is run.
"""

import os

import common
import onnxruntime as ort


def load(path, feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if os.environ.get("ORT_FORMAT"):
        saved = path.with_suffix(".ort")
        options.optimized_model_filepath = str(saved)
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        path, options = saved, ort.SessionOptions()
        options.intra_op_num_threads = 1
    provider = os.environ.get("PROVIDER", "CPUExecutionProvider")
    session = ort.InferenceSession(str(path), options, providers=[provider], enable_fallback=0)
    if provider not in session.get_providers():
        raise RuntimeError(f"{provider} does not start: another provider runs in its place")
    names = [v.name for v in session.get_outputs()]
    taken = {v.name for v in (*session.get_inputs(), *session.get_overridable_initializers())}
    given = {name: array for name, array in feeds.items() if name in taken}
    return lambda: dict(zip(names, session.run(None, given), strict=True))


if __name__ == "__main__":
    common.main(load)
