"""What `fgonnx check` says of trained models: `python -m benchmarks.checks FOLDER > docs/checks.md`.

Every model is checked as `fgonnx.check` does it by default, on two seeded random samples and one thread. Times are
those of the processor, from loading the file to the verdict, so that they do not depend on what else runs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from fgonnx.audit.check import check
from fgonnx.audit.found import Check
from fgonnx.engine.model.bind import bind
from fgonnx.engine.model.load import load

#: What models need to be told.
BOUND: dict[str, dict[str, Any]] = {"silero_vad_16k_op15": {"sr": 16000}, "silero_vad_v5": {"sr": 16000, "state": 0}}
GIVEN: dict[str, dict[str, Any]] = {
    "silero_vad_16k_op15": {"input": "input", "input_shape": (1, 512)},
    "silero_vad_v5": {"input_shape": (1, 576)},
}
WORDS = {"passed": "passed", "failed": "failed", "undecided": "not decided"}
HEAD = """# Checks of trained models

What [`fgonnx check`](cli.md#check) says of {count} trained models, on two seeded random samples each, with the largest
relative difference of each check. Slopes are measured by differences of the score, or taken forwards through the source
(F) where differences do not show them. Seconds are those of one processor.

`python -m benchmarks.checks FOLDER > docs/checks.md` writes this page.

| model | verdict | outputs | completeness | along the gradient | random directions | s |
| --- | --- | ---: | ---: | ---: | ---: | ---: |"""


def said(found: Check) -> str:
    """Return one cell: the difference, how it was measured, and the verdict where it is none."""
    how = " F" if found.verdict == "passed" and "taken forwards" in found.detail else ""
    return f"{found.value:.0e}{how}" + ("" if found.verdict == "passed" else f" ({WORDS[found.verdict]})")


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    paths = sorted(parser.parse_args().folder.glob("*.onnx"))
    print(HEAD.format(count=len(paths)), flush=True)
    for path in paths:
        start = time.process_time()
        result = check(bind(load(path), BOUND.get(path.stem, {})), threads=1, **GIVEN.get(path.stem, {}))
        cells = [path.stem, WORDS[result.verdict], *map(said, result.checks), f"{time.process_time() - start:.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
