"""OpenCV, from whichever of its wheels is installed; fgonnx opens no window, so that the headless ones will do."""

from __future__ import annotations

from fgonnx.errors import ProviderError

try:
    import cv2
except ImportError as error:
    raise ProviderError(
        f"OpenCV cannot be loaded ({error}). On a machine without a display, put its headless build in the place of "
        "the other: pip uninstall opencv-python, then pip install opencv-python-headless"
    ) from error

__all__ = ["cv2"]
