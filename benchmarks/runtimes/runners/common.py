"""One run of one file in one runtime: `python RUNNER.py FOLDER STEM KEY`, in an environment that has the runtime.

FOLDER holds STEM.onnx, STEM.outputs.json and feeds.json (name, type, shape and file of every input). Written are
STEM.KEY.json and one file per output. Nothing of fgonnx is imported here.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]
Run = Callable[[], Arrays]

REPEATS = 5
ENOUGH = 1.0  # seconds


def outputs(path: Path) -> list[str]:
    """Return the names of a file's outputs."""
    return json.loads(path.with_suffix(".outputs.json").read_text())


def main(load: Callable[[Path, Arrays], Run]) -> None:
    """Load the file, run it several times, and write outputs, the version of the runtime and the shortest time."""
    folder, stem, key = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    feeds = {
        name: np.fromfile(folder / f["file"], f["dtype"]).reshape(f["shape"])
        for name, f in json.loads((folder / "feeds.json").read_text()).items()
    }
    begun = time.perf_counter()
    run = load(folder / f"{stem}.onnx", feeds)
    loaded = time.perf_counter() - begun
    results, times = run(), []
    while len(times) < REPEATS and sum(times) < ENOUGH:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    described = {}
    for i, (name, array) in enumerate(results.items()):
        file = f"{stem}.{key}.{i}.bin"
        np.ascontiguousarray(array).tofile(folder / file)
        described[name] = {"file": file, "dtype": str(array.dtype), "shape": list(array.shape)}
    found = {"outputs": described, "seconds": min(times), "load": loaded}
    (folder / f"{stem}.{key}.json").write_text(json.dumps(found))
