"""Slopes of the source model itself, taken forwards through it, operator by operator.

Differences of a score are evidence as long as the score shows what its input does. Where the model rounds inside (steps
of quantisation, casts to half precision, large numbers that cancel), they are lost in it. Here the source is run by
onnxruntime on the sample, and from its own values each operator's part of the slope is taken in real numbers: a
tangent, the derivative along a direction. Rounding passes tangents on, saturation ends them. No rule for gradients is
used, and nothing that fgonnx has written.
"""

from fgonnx.audit.forward.operators import Unmeasured
from fgonnx.audit.forward.run import Forward

__all__ = ["Forward", "Unmeasured"]
