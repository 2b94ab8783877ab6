"""Recognise the framework of a source, from the object or the content of the file, without loading it."""

from __future__ import annotations

import builtins
import pickletools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgonnx import files
from fgonnx.errors import ModelError
from fgonnx.files import kind_of
from fgonnx.wording import first_line, parameter

FRAMEWORKS = ("torch", "tensorflow", "keras", "tflite", "jax", "sklearn", "paddle")
"""Frameworks with a converter module."""

_PACKAGES = {
    "torch": "torch",
    "keras": "keras",
    "tensorflow": "tensorflow",
    "flax": "jax",
    "jax": "jax",
    "jaxlib": "jax",
    "equinox": "jax",
    "sklearn": "sklearn",
    "paddle": "paddle",
}
_CODE = re.compile(rb'"class_name"\s*:\s*"(Lambda|__lambda__|TFSMLayer)"')
_OF_CODE = ("Lambda", "__lambda__", "TFSMLayer")
_HARMLESS = ("keras.activations", "keras.initializers", "keras.ops", "keras.src.activations", "keras.src.ops")
_MOST_DESCRIPTION = 1 << 28  # bytes
_HEAD = 4096  # bytes in which signatures are looked for
_KNOWN = (
    "torch (.pt, .pt2), TensorFlow (a SavedModel folder, a frozen .pb), Keras (.keras, .h5), .tflite, scikit-learn "
    "(.joblib, .pkl) or Paddle (.pdmodel, .json)"
)


@dataclass(frozen=True)
class Kind:
    """The kind of a source.

    Attributes
    ----------
    framework : str
        One of FRAMEWORKS.
    kind : str
        Description: "TorchScript", "SavedModel", "pickle"...
    """

    framework: str
    kind: str


def of_object(source: Any) -> str:
    """Return the framework of an object, by the packages that define its classes.

    Raises
    ------
    ModelError
        If no framework is recognised.
    """
    if isinstance(source, Mapping) and source:
        return of_object(next(iter(source.values())))  # a state dict: its framework will say what is missing
    if isinstance(source, tuple) and source:
        return of_object(source[0])
    roots = [c.__module__.partition(".")[0] for c in type(source).__mro__]
    # A Keras model may also be a tf.Module: Keras is the closer description.
    found = {_PACKAGES[r] for r in roots if r in _PACKAGES}
    if not found:
        raise ModelError(
            f"cannot tell the framework of a {type(source).__module__}.{type(source).__name__}: say "
            f"{parameter('framework')} one of {', '.join(FRAMEWORKS)}"
        )
    return "keras" if "keras" in found else next(_PACKAGES[r] for r in roots if r in _PACKAGES)


def recognise(path: Path) -> Kind:
    """Recognise a file or folder by its content.

    Raises
    ------
    ModelError
        If it is missing, is ONNX already, holds only weights, or is of no known kind.
    """
    try:
        what = kind_of(path.stat().st_mode)
        if what == "a folder":
            return _folder(path)
        if what:
            raise ModelError(f"'{path}' is {what}: give {_KNOWN}")
        return _file(path)
    except FileNotFoundError:
        raise ModelError(f"'{path}': no such file or folder") from None
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"'{path}' cannot be read: {first_line(error)}") from error


def _file(path: Path) -> Kind:
    with path.open("rb") as file:
        start = file.read(_HEAD)
    if start[4:8] == b"TFL3":  # its metadata may stand behind it as a zip archive
        return Kind("tflite", "TensorFlow Lite")
    if zipfile.is_zipfile(path):
        return _archive(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return Kind("keras", "HDF5")
    if start[:1] == b"\x80" or path.suffix.lower() in (".joblib", ".pkl", ".pickle"):
        return Kind(_framework_of_pickle(path), "pickle")
    if start[8:9] == b"{" and path.suffix.lower() == ".safetensors":
        raise ModelError(
            f"'{path}' holds only weights (safetensors), not the network: load them into an instance of its class in "
            "Python and pass that to fgonnx.converters.convert"
        )
    if path.suffix.lower() == ".onnx":
        raise ModelError(f"'{path}' is an ONNX file already: fgonnx explains it as it is (fgonnx explain)")
    if path.suffix.lower() == ".pdmodel" or (path.suffix.lower() == ".json" and b'"base_code"' in start):
        return Kind("paddle", "inference model")
    if path.suffix.lower() == ".pb" and start[:1] == b"\n":
        return Kind("tensorflow", "frozen graph")
    raise ModelError(f"'{path}' is of no known kind: give {_KNOWN}")


def code_in(path: Path) -> str:
    """Return what of a Keras file is code, or brings code from elsewhere; "" where nothing does.

    That is a Lambda layer, a TFSMLayer (a SavedModel beside the file), and a function or class of any package but
    Keras: safe mode has let each of them through in some version, and HDF5 files have none.

    Raises
    ------
    ModelError
        The description of its layers cannot be read.
    """
    if not zipfile.is_zipfile(path):
        found = _CODE.search(path.read_bytes())  # HDF5 keeps the description of a network as plain text
        return f"a {found[1].decode()}" if found else ""
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            return ""
        if archive.getinfo("config.json").file_size > _MOST_DESCRIPTION:
            raise ModelError(f"'{path}': the description of its layers has over {_MOST_DESCRIPTION:,} bytes")
        text = archive.read("config.json").decode(errors="replace")
    return code_of(files.parsed(text, f"'{path}': the description of its layers", ModelError))


def code_of(config: Any) -> str:
    """Return what of a description of layers is code, or brings code from elsewhere; "" where nothing does."""
    parts = [config]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            name, module = part.get("class_name"), str(part.get("module") or "")
            if name in _OF_CODE:
                return f"a {name}"
            if name == "function" and not _is_harmless(module, str(part.get("config"))):
                return f"the function {module}.{part.get('config')}"
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return ""


def _is_harmless(module: str, name: str) -> bool:
    """Tell whether Keras may look up a function: one of its own, or of those that a program has registered with it."""
    if module in ("", "builtins"):
        return not hasattr(builtins, name)
    return module.startswith(_HARMLESS)


def _folder(path: Path) -> Kind:
    if (path / "saved_model.pb").is_file():
        return Kind("tensorflow", "SavedModel")
    if any(path.glob("*.pdmodel")) or any(path.glob("inference.json")):
        return Kind("paddle", "inference model")
    raise ModelError(f"'{path}' is a folder without saved_model.pb: give {_KNOWN}")


def _archive(path: Path) -> Kind:
    names = zipfile.ZipFile(path).namelist()
    # torch puts everything below one folder of the archive's own name
    inner = {n.partition("/")[2] for n in names}
    if "model.weights.h5" in names and "config.json" in names:
        return Kind("keras", ".keras")
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        return Kind("torch", "ExportedProgram")
    if "constants.pkl" in inner and any(n.startswith("code/") for n in inner):
        return Kind("torch", "TorchScript")
    if "data.pkl" in inner:
        return Kind("torch", "pickle")
    raise ModelError(f"'{path}' is a zip archive of no known kind: give {_KNOWN}")


def _framework_of_pickle(path: Path) -> str:
    """Read the names in a pickle's opcodes, without executing anything."""
    found = []
    with path.open("rb") as file:
        try:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in ("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE") and isinstance(argument, str):
                    found.append(argument.partition(".")[0].partition(" ")[0])
        except (ValueError, UnicodeDecodeError):
            pass  # joblib writes arrays between the opcodes, or compresses all of it
    return next((_PACKAGES[name] for name in found if name in _PACKAGES), "sklearn")
