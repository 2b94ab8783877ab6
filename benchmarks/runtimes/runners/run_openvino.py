"""OpenVINO's CPU plugin in float32; outputs by the first of their names, as its users get them."""

import common
import openvino as ov


def load(path, feeds):
    core = ov.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    taken = {name for port in compiled.inputs for name in port.names}
    given = {name: array for name, array in feeds.items() if name in taken}

    def run():
        results = compiled(given)
        return {port.any_name: results[port] for port in compiled.outputs}

    return run


if __name__ == "__main__":
    common.main(load)
