"""A page written: graphs with one file of weights, the page's own files, the runtime, the gallery."""

from __future__ import annotations

import base64
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from fgonnx.engine import methods
from fgonnx.engine.graph.running import Running
from fgonnx.engine.graph.values import dims_of, dtype_of
from fgonnx.engine.maps.psi import SIGNED
from fgonnx.engine.model import bind as binding
from fgonnx.engine.model.load import load
from fgonnx.engine.rewrite.arranged import arranged
from fgonnx.engine.rewrite.options import INPUT, Options
from fgonnx.engine.rewrite.rewrite import build, rewrite
from fgonnx.engine.rewrite.rewritten import sites_of
from fgonnx.errors import ModelError, OptionError
from fgonnx.explain.proof import prover
from fgonnx.files import check_folder, make_folder, replacing
from fgonnx.jobs import provenance
from fgonnx.jobs.reading import Reading, agreed_layout, aligned_labels
from fgonnx.jobs.record import versions
from fgonnx.pictures.show import visual
from fgonnx.view import runtime, single
from fgonnx.view.options import PageOptions
from fgonnx.view.samples import collect
from fgonnx.view.weights import NAME as WEIGHTS
from fgonnx.view.weights import Weights

FORMAT = 1
INDEX, MODEL = "index.html", "data/model.json"
COLOURS = ("inferno", "cividis", "viridis")
_CHANNELS = {"GRAY": 1, "RGB": 3, "BGR": 3, "RGBA": 4, "BGRA": 4}
_FLOATS = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.FLOAT16: "float16", onnx.TensorProto.UINT8: "uint8"}


@dataclass
class PageJob:
    """Writes the page of a model.

    Attributes
    ----------
    model : Path
        The model, whose input is a picture.
    options : Options
        What is explained; method, psi and profile are those of `page`.
    reading : Reading
        Preprocessing and labels.
    page : PageOptions
        What the page offers.
    verify : bool
        Whether the first graph is run and held against the model.
    say : callable
        Hears a sentence when something takes long.
    """

    model: Path
    options: Options
    reading: Reading
    page: PageOptions
    verify: bool = True
    say: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        self._choices = self.page.choices()
        self.loaded = binding.bind(load(self.model), self.options.bind, self.options.input_shape)
        options = replace(self.options, bind=None, form="portable")
        value = self.loaded.input(options.input)
        if why := _no_picture(value):
            raise ModelError(
                f"{self.loaded.name}: a page shows pictures, and the input '{value.name}' {why}; explain recordings, "
                "texts and tables with 'fgonnx explain'"
            )
        found, self.origin = self.reading.preprocessing(
            self.loaded, options.input, required=True, shape=options.explained_shape
        )
        assert found is not None
        self.preprocessing = found
        if found.size is None:
            raise OptionError(
                f"{self.loaded.name}: the model takes pictures of any size, and a page has graphs of one; give the "
                "size with the preprocessing, such as imagenet,size=224"
            )
        layout = agreed_layout(options.layout, found, self.loaded, options.input)
        options = replace(options, layout=layout)
        if options.input_shape is None and not all(isinstance(d, int) for d in dims_of(value)[1:]):
            options = replace(options, input_shape=self._dims)
        self._options = options

    @property
    def _dims(self) -> tuple[int, ...]:
        """The shape of one prepared picture, with its batch."""
        pre = self.preprocessing
        assert pre.size is not None
        assert pre.channels is not None
        assert pre.layout is not None
        count = _CHANNELS[pre.channels]
        return (1, *{"NCHW": (count, *pre.size), "NHWC": (*pre.size, count), "NHW": pre.size}[pre.layout])

    def write(self, folder: Path) -> list[Path]:
        """Write the page.

        Parameters
        ----------
        folder : Path
            Its folder; it is made. Files of an earlier page are replaced, others are left alone.

        Returns
        -------
        list of Path
            The files, the page first.

        Raises
        ------
        FgonnxError
            Model, options or samples are wrong, the model has other inputs than a picture, or onnxruntime-web is not
            there. Nothing is written then.
        """
        check_folder(folder)
        samples = collect(self.page.samples)
        wanted = self.page.webgpu and not self.page.single_file
        ort = runtime.find(self.page.ort_web, webgpu=wanted, say=self.say)
        graphs, described = self._graphs()
        described["runtime"] = {"name": runtime.PACKAGE, "version": ort.version}
        described["webgpu"] = wanted
        described["samples"] = [{"file": s.file, "name": s.name, "type": s.type} for s in samples]
        text = json.dumps(described, ensure_ascii=False, allow_nan=False)
        files: dict[str, bytes] = {
            MODEL: text.encode("utf-8", "backslashreplace"),
            **{f"data/{name}": content for name, content in graphs.items()},
            **{f"ort/{name}": content for name, content in ort.files.items()},
            **{s.file: s.content for s in samples},
        }
        own = {p.name: p.read_bytes() for p in resources.files("fgonnx.view").joinpath("page").iterdir() if p.is_file()}
        index = own.pop(INDEX)
        if self.page.single_file:
            written = {INDEX: single.page(index, own, files)}
        else:
            licence = {"ort/LICENSE.txt": runtime.licence().encode()}
            written = {INDEX: index, **{f"page/{name}": content for name, content in own.items()}, **files, **licence}
        _clear(folder, written)
        return [_put(folder / name, content) for name, content in written.items()]

    def _graphs(self) -> tuple[dict[str, bytes], dict[str, Any]]:
        """Return the graphs and their weights as files, and the description of the page."""
        weights, graphs, maps = Weights(), {}, []
        forward = self._rewritten(self._options.only("head"))
        self._refuse_others(forward)
        known = _metadata(forward)
        shape = [int(n) for n in json.loads(known["fgonnx.head_shape"])]
        for number, (method, psi, profile) in enumerate(self._choices):
            self.say(f"map {number + 1} of {len(self._choices)}: {method}, {psi}, {profile}")
            options = replace(self._options, method=method, settings=None, psi=psi, profile=profile, target=INPUT)
            proto = self._rewritten(options)
            name = f"map-{number:02}.onnx"
            maps.append(self._map(proto, options, f"data/{name}"))
            graphs[name] = self._packed(proto, weights, prove=self.verify and number == 0)
        described = {
            "format": FORMAT,
            "name": self.loaded.name,
            "about": self._about(len(maps[0]["sites"])),
            "described": f"{self.preprocessing.describe()} (from: {self.origin})",
            "model": {**provenance.model_of(self.loaded, self.model), "path": self.model.name},
            "versions": versions(Running()),
            "input": self._input(forward),
            "preprocessing": json.loads(self.preprocessing.to_json()),
            "head": {
                "value": known["fgonnx.head_value"],
                "before": known.get("fgonnx.head_stripped"),
                "shape": shape,
                "axes": self._axes(),
                **self._labels(shape),
            },
            "predict": self._predict(forward, known),
            "maps": maps,
            "colours": _colours(),
        }
        graphs["predict.onnx"] = self._packed(forward, weights, prove=False)
        if weights.content:
            graphs[WEIGHTS] = bytes(weights.content)
        described["weights"] = f"data/{WEIGHTS}" if weights.content else None
        return graphs, described

    def _about(self, layers: int) -> str:
        """Say in a few words what the model is."""
        assert self.preprocessing.size is not None
        height, width = self.preprocessing.size
        return f"sees {width} × {height} pixels" + (f", explained by {layers} layers" if layers else "")

    def _rewritten(self, options: Options) -> onnx.ModelProto:
        return rewrite(self.loaded, options=options)

    def _packed(self, proto: onnx.ModelProto, weights: Weights, *, prove: bool) -> bytes:
        """Return a graph without its large weights; a proof runs it with them first."""
        check = prover(self.loaded, proto) if prove else None
        inlined = onnx.ModelProto()
        inlined.CopyFrom(proto)
        if self.loaded.folder is not None:
            onnx.external_data_helper.load_external_data_for_model(inlined, str(self.loaded.folder))
        weights.take(inlined.graph)
        content: bytes = inlined.SerializeToString()
        if check is not None:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, WEIGHTS).write_bytes(weights.content)
                path = Path(folder, "graph.onnx")
                path.write_bytes(content)
                check(path)
        return content

    def _refuse_others(self, forward: onnx.ModelProto) -> None:
        """Refuse a model with several inputs."""
        held = {t.name for t in forward.graph.initializer}
        names = [v.name for v in forward.graph.input if v.name not in held]
        if len(names) > 1:
            own = _metadata(forward)["fgonnx.input"]
            others = [name for name in names if name != own]
            raise ModelError(
                f"{self.loaded.name}: besides the picture the model takes {', '.join(others)}, and a page gives it a "
                f"picture alone; fix the others, as in --bind {others[0]}=zeros"
            )

    def _input(self, forward: onnx.ModelProto) -> dict[str, Any]:
        """Describe the input: its shape may have the batch anywhere, or none, which moves no number."""
        own = _metadata(forward)["fgonnx.input"]
        tensor = next(v for v in forward.graph.input if v.name == own).type.tensor_type
        given = [d.dim_value for d in tensor.shape.dim]
        expected = self._dims if len(given) == len(self._dims) else self._dims[1:]
        dims = [d if d > 0 else e for d, e in zip(given, expected, strict=True)]
        if math.prod(dims) != math.prod(self._dims):
            raise ModelError(
                f"{self.loaded.name}: the input '{own}' takes {dims}, more than one picture of {list(self._dims)}; "
                "export the model with a batch that is free or 1"
            )
        return {"name": own, "dims": dims, "dtype": _FLOATS[tensor.elem_type]}

    def _predict(self, forward: onnx.ModelProto, known: Mapping[str, str]) -> dict[str, Any]:
        """Say where a run of the model has scores and probabilities."""
        names: dict[str, str] = json.loads(known["fgonnx.outputs"])
        stripped = known.get("fgonnx.head_stripped")
        kinds = {v.name: v.type.tensor_type.elem_type for v in forward.graph.output}
        own = self._options.output or next(iter(json.loads(known["fgonnx.source_outputs"])), "")
        floats = stripped and kinds.get(own) in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        return {
            "file": "data/predict.onnx",
            "scores": names["head"],
            "probabilities": own if floats else None,
            "exponential": stripped == "LogSoftmax",
        }

    def _map(self, proto: onnx.ModelProto, options: Options, file: str) -> dict[str, Any]:
        """Describe a graph that explains."""
        known = _metadata(proto)
        names: dict[str, str] = json.loads(known["fgonnx.outputs"])
        method = methods.find(options.method)
        if "saliency" not in names:
            raise OptionError(f"{options.method} writes no map; choose another method for the page")
        layer = known.get("fgonnx.layer")
        return {
            "file": file,
            "method": options.method,
            "psi": options.psi,
            "profile": options.profile,
            "signed": options.psi == SIGNED,
            "selector": known["fgonnx.selector"].strip('"'),
            "outputs": {k: names[k] for k in ("saliency", "score", "completeness", "contributions") if k in names},
            "sites": [{**vars(s), "grid": list(s.grid)} for s in sites_of(proto)] if method.sites else [],
            "settings": {k: v for k, v in options.to_dict().items() if v is None or isinstance(v, str | int | float)},
            "notes": [f"layer: {layer}"] if layer else [],
        }

    def _labels(self, shape: Sequence[int]) -> dict[str, Any]:
        """Return names of entries, and, of a detector, of classes."""
        given = self.reading.names()
        raw = given if given is not None else self.loaded.labels()
        if sum(size > 1 for size in shape) > 1:
            return {"labels": None, "classes": list(raw or ())}
        names, _ = aligned_labels(given, self.loaded.labels(), math.prod(shape))
        return {"labels": None if names is None else [str(n) for n in names], "classes": []}

    def _axes(self) -> list[int | None]:
        """Return which axis of the picture each axis of the head is."""
        loaded, options = arranged(self.loaded, self._options.only("head"))
        return list(build(loaded, options).head_axes)


def _no_picture(value: ir.Value) -> str:
    """Say why an input takes no picture; "" where it may."""
    dims = [d if isinstance(d, int) else None for d in dims_of(value)]
    if len(dims) not in (3, 4):
        return f"has {len(dims)} axes, a picture 4 with its batch, or 3 in grey"
    if len(dims) == 4 and not {dims[1], dims[3]} & {None, 1, 3, 4}:
        return f"has {dims[1]} or {dims[3]} channels, a picture 1, 3 or 4"
    kind = dtype_of(value).numpy()
    return (
        ""
        if kind in ("float32", "float16", "uint8")
        else f"takes {kind}, and pictures become float32, float16 or uint8"
    )


def _metadata(proto: onnx.ModelProto) -> dict[str, str]:
    return {p.key: p.value for p in proto.metadata_props}


def _colours() -> dict[str, str]:
    """Return the colour scales of fgonnx's pictures, 256 RGB colours each, as base64."""
    ramp = np.linspace(0, 1, 256)[None]
    scales = {name: visual.heat(ramp, percentile=100, colormap=name) for name in COLOURS}
    scales["signed"] = visual.heat(2 * ramp - 1, signed=True, percentile=100)
    return {name: base64.b64encode(scale.tobytes()).decode() for name, scale in scales.items()}


def _put(path: Path, content: bytes) -> Path:
    make_folder(path.parent)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def _clear(folder: Path, written: Mapping[str, bytes]) -> None:
    """Remove graphs and samples of an earlier page that this one does not have; refuse a folder with another page."""
    index = folder / INDEX
    if not index.exists():
        return
    mine = (folder / MODEL).is_file() or b"<title>fgonnx view</title>" in index.read_bytes()[:4096]
    if not mine:
        raise OptionError(f"'{index}' is another page, which is not replaced; give another folder")
    for path in [*(folder / "data").glob("*"), *(folder / "samples").glob("*")]:
        if path.is_file() and path.relative_to(folder).as_posix() not in written:
            path.unlink()
