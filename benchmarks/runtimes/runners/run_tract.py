"""tract, with the batch fixed at the input, as its users do."""

import common
import tract

_TYPES = {"float32": "f32", "int64": "i64", "uint8": "u8"}


def load(path, feeds):
    model = tract.onnx().load(str(path))
    given = []
    for i in range(model.input_count()):
        array = feeds[model.input_name(i)]
        sizes = ",".join(map(str, array.shape))
        model.set_input_fact(i, f"{sizes},{_TYPES[str(array.dtype)]}")
        given.append(array)
    names = common.outputs(path)
    runnable = model.into_model().into_runnable()
    return lambda: {name: v.to_numpy() for name, v in zip(names, runnable.run(given), strict=True)}


if __name__ == "__main__":
    common.main(load)
