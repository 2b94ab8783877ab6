import subprocess
import sys

models, limits = ["examples/shapes.onnx", "int8.onnx"], ["--min-top1", "1", "--min-rank-correlation", "0.9"]
command = [sys.executable, "-m", "fgonnx", "compare", *models, "examples/images", "-o", "seen", *limits]
subprocess.run(command, check=True)
