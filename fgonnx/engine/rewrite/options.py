"""What is explained and how: `Options`, frozen, and one reading of them for every entry point."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from fgonnx.engine import methods
from fgonnx.engine.graph.running import Running
from fgonnx.engine.maps import aggregate
from fgonnx.engine.maps.psi import ABS, SIGNED
from fgonnx.engine.model import bind as binding
from fgonnx.engine.rewrite import unused
from fgonnx.engine.rewrite.sizes import parse_shapes
from fgonnx.engine.walk import ENGINES, PASSES
from fgonnx.errors import OptionError
from fgonnx.fields import (
    MODEL,
    RUNNING,
    changed,
    check_choices,
    check_fields,
    check_idle,
    documented,
    idle,
    of_kind,
    option,
    refuse_idle,
    suggestion,
)
from fgonnx.wording import near, parameter, whole

HEADS = ("logits", "output")
FAST, PORTABLE, OPENVINO = "fast", "portable", "openvino"
FORMS = (FAST, PORTABLE, OPENVINO)
BACKWARDS = ("gradient", *PASSES)
ARGMAX, INPUT = "argmax", "input"
TARGETS = (ARGMAX, INPUT)
"""What a written file may explain besides an entry: the largest, or what an input says."""

NEXT = "next"
"""The contrast with the largest entry other than the target."""

CERTIFICATE = ("saliency", "target", "score", "completeness", "contributions")
OUTPUTS = (*CERTIFICATE, "blocks", "input_gradient", "bias_gradients", "attribution", "head", "contrast")

#: Fields that only affect a written file (`rewrite`).
FILE = ("target", "seed", "outputs", "expose", "form")

_CERTIFIED = tuple(name for name in methods.names() if methods.find(name).certificate)


def parse_list(text: str) -> tuple[str, ...]:
    """Parse comma-separated names."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_contrast(text: str) -> str | int:
    """Parse a contrast: an index, or a text."""
    if not text.strip():
        raise OptionError("the contrast is empty: give an index, a label, or 'next'")
    index = whole(text)
    return text.strip() if index is None or index < 0 else index


@documented
@dataclass(frozen=True, kw_only=True)
class Options:
    """What is explained and how. Immutable; `dataclasses.replace` makes variants.

    Functions that take options also take their fields as keyword arguments, and the method's own settings:
    ``Explainer(model, method="grad-cam", layer="conv5")`` is
    ``Explainer(model, Options(method="grad-cam", settings={"layer": "conv5"}))``.
    """

    method: str = option(
        "fullgrad",
        f"How the map is made: {', '.join(methods.names())}. Certified are {', '.join(_CERTIFIED)}; "
        "docs/methods.md says what each computes.",
    )
    settings: Any = option(
        None,
        "A setting of the method, such as steps=100, layer=conv5 or references=inputs.npy. Repeatable.",
        flag="--set",
        metavar="NAME=VALUE",
        many=True,
        python="In Python, a mapping of names to values; a field of the options object holds them as the method's own "
        "dataclass.",
    )
    profile: str = option(
        "full",
        "Which layers the map shows: full (all with a place in the picture), reference (biases of Conv and "
        "BatchNormalization, as the authors' code), paper (one per linear block).",
        idle=unused.profile,
    )
    contrast: str | int | None = option(
        None,
        "Why this and not that: explain the target minus another class, given by index or label, or 'next' for the "
        "largest other one. The map is signed: psi abs becomes signed.",
        metavar="CLASS",
        parse=parse_contrast,
        idle=unused.contrast,
    )
    psi: str = option(
        "abs",
        "abs (what matters), positive (what speaks for it), signed (for and against, unscaled).",
        python="For methods without sites: which part of each entry of the attribution is summed over channels.",
        idle=unused.psi,
    )
    head: str = option(
        "logits",
        "logits: explain the values before a final Softmax or Sigmoid; output: the output itself.",
    )
    output: str | None = option(
        None,
        "Output to explain. Default: the first.",
        metavar="NAME",
        python="Any value of the graph may be named.",
    )
    input: str | None = option(None, "Input to explain, where several could be meant.", metavar="NAME")
    input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = option(
        None,
        "Shape of the input, for models with free sizes; of another input by its name, as mask=1,20. Repeatable.",
        panel=MODEL,
        metavar="1,3,224,224",
        parse=parse_shapes,
        many=True,
        least=1,
        python="In Python, shapes of several inputs are a mapping of names to tuples.",
    )
    layout: str | None = option(
        None, "Axes of the input, such as NCHW or NHWC. Default: found out.", panel=MODEL, metavar="NCHW"
    )
    bind: Mapping[str, Any] | None = option(
        None,
        "Fix an input of a model with several: a number, zeros, or a .npy file. Repeatable.",
        panel=MODEL,
        metavar="NAME=VALUE",
        parse=binding.parse,
        many=True,
        python="In Python, a mapping of names to numbers or arrays; a number fills the input's shape.",
    )
    engine: str = option(
        "fgonnx",
        "Where gradients come from: fgonnx, or ort-training (ONNX Runtime's training build, docs/engines.md).",
        panel=RUNNING,
        idle=unused.engine,
    )
    form: str = option(
        "fast",
        "fast: fast on ONNX Runtime. portable: plain operators for other runtimes. openvino: of these, those that are "
        "fast on OpenVINO.",
        metavar="FORM",
    )
    backward: str = option(
        "gradient",
        "What goes back through the network: gradient; for transformers libra, which holds normalisation, gates and "
        "attention fixed (LibraGrad, CVPR 2025), or attnlrp, relevance (AttnLRP, ICML 2024).",
        idle=unused.backward,
    )
    target: int | str | None = option(
        None,
        "The entry that a written file explains: argmax (the largest) or an index, and the file has the model's own "
        "inputs alone; or input, a required input target_index (N,), -1 for the largest. Default: target_index has a "
        "default value, the largest entry; ONNX Runtime in Python alone lets it be left out and given.",
        metavar="CLASS",
        typed=False,
        idle=unused.target,
    )
    seed: bool = option(
        False, "Take a cotangent of the head as an input instead of a class index.", flag="--seed", switch=True
    )
    outputs: tuple[str, ...] | None = option(
        None,
        f"What to compute: {', '.join(OUTPUTS)}. Default: the first five, as far as the method has them.",
        metavar="A,B",
        parse=parse_list,
    )
    expose: tuple[str, ...] = option(
        (),
        "More outputs: any value's NAME, gradient:NAME, bias:SITE, bias_gradient:SITE. Repeatable.",
        metavar="NAME",
        many=True,
    )
    certificate: bool = option(
        True, "Whether contributions and completeness are computed.", typed=False, idle=unused.certificate
    )
    input_gradient: bool = option(False, "Whether the gradient with respect to the input is an output.", typed=False)
    bias_gradients: bool = option(False, "Whether the bias-gradients of all sites are outputs.", typed=False)
    scores: bool = option(False, "Whether all entries of the tensor explained are an output.", typed=False)
    one_by_one: bool = option(False, "Run samples one by one even where the graph takes a batch.", typed=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", methods.named(self.method))
        check_fields(self)
        choices = {
            "profile": aggregate.PROFILES,
            "psi": aggregate.PSIS,
            "head": HEADS,
            "form": FORMS,
            "backward": BACKWARDS,
        }
        methods.find(self.method)
        if isinstance(self.target, str):
            check_choices(self, target=TARGETS)
        check_choices(self, method=methods.names(), engine=ENGINES, **choices)
        method = methods.find(self.method)
        map_ = SIGNED in method.psis and (self.outputs is None or "saliency" in self.outputs)
        if self.contrast is not None and self.psi == ABS and map_:
            object.__setattr__(self, "psi", SIGNED)  # a difference has a sign
        object.__setattr__(self, "settings", method.set(_settings(method, self.settings)))
        check_idle(self)
        self._check_outputs(method)

    def _check_outputs(self, method: methods.Method) -> None:
        """Refuse outputs that a method does not have."""
        known = [*method.writes, "target", "score", "head"]
        known += ["contrast"] * (self.contrast is not None)
        known += ["completeness", "contributions", "bias_gradients"] * method.sites
        known += ["input_gradient"] * method.gradient
        unknown = [name for name in self.wanted if name not in known]
        if unknown:
            raise OptionError(
                f"with {method.name} there is no output {unknown[0]!r}; choose from: {', '.join(known)}"
                f"{near(unknown[0], known)}"
            )

    @property
    def explained_shape(self) -> tuple[int, ...] | None:
        """The shape that is given of the explained input, where several are given by name (`sized`)."""
        return self.input_shape if isinstance(self.input_shape, tuple) else None

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the outputs that a graph with these options has, without those of `expose`."""
        method = methods.find(self.method)
        names = list(self.outputs or ())
        if self.outputs is None:
            names = [*(method.needs or [n for n in ("saliency",) if n in method.writes]), "target", "score"]
            names += ["contrast"] * (self.contrast is not None)
            names += ["completeness", "contributions"] * (self.certificate and method.certificate)
            names += ["blocks"] * (self.certificate and "blocks" in method.writes)
        more = {"input_gradient": self.input_gradient, "bias_gradients": self.bias_gradients, "head": self.scores}
        return tuple(dict.fromkeys([*names, *(name for name, asked in more.items() if asked)]))

    def only(self, *outputs: str) -> Options:
        """Return these options for a graph with the given outputs alone."""
        psi = self.psi if "saliency" in outputs else Options.psi
        bare = replace(self, expose=(), input_gradient=False, bias_gradients=False, scores=False, certificate=True)
        return replace(bare, outputs=outputs, psi=psi)

    def to_dict(self) -> dict[str, Any]:
        """Return the options that identify an explanation, ready for JSON: for records and metadata.

        The method's settings are entries of their own; options that have no effect on the explanation, and those left
        at defaults that say nothing (None, or fgonnx's own engine), are left out. Arrays are described by their hash.
        """
        return dict(self._identity)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What `to_dict` returns; arrays among the settings are hashed once."""
        always = {name: getattr(self, name) for name in ("method", "profile", "psi", "head", "output", "input")}
        given = {
            "input_shape": _listed(self.input_shape),
            "layout": self.layout,
            "bind": described(self.bind) if self.bind else None,
            "engine": self.engine if self.engine != "fgonnx" else None,
            "contrast": self.contrast,
            "backward": self.backward if self.backward != "gradient" else None,
        }
        return {**always, **described(_by_name(self.settings)), **{k: v for k, v in given.items() if v is not None}}


def _listed(shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None) -> Any:
    if isinstance(shape, Mapping):
        return {name: list(sizes) for name, sizes in shape.items()}
    return None if shape is None else list(shape)


def described(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values ready for JSON: numbers and texts as they are, arrays as type, shape and hash, others as text."""

    def one(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return binding.described(value)
        return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)

    return {name: one(value) for name, value in values.items()}


def with_changes(
    options: Options | None, running: Running | None, changes: Mapping[str, Any]
) -> tuple[Options, Running]:
    """Return options and running with changes: fields of either, or settings of the method.

    Raises
    ------
    OptionError
        A change is none of these, or its value does not exist.
    """
    options, running = of_kind(options, Options), of_kind(running, Running)
    own = {f.name for f in fields(Options)}
    (running,), left = changed({k: v for k, v in changes.items() if k not in own}, running)
    changes = {k: v for k, v in changes.items() if k in own}
    if "method" in changes:
        changes["method"] = methods.named(changes["method"])
    method = methods.find(changes.get("method", options.method))
    known = {f.name for f in fields(method.settings)}
    for name in left:
        if name not in known and (like := suggestion(name, Options, Running)):
            raise OptionError(f"there is no option '{name}'{like}")
    if left or "settings" in changes or method.name != options.method:
        kept = _by_name(options.settings) if method.name == options.method else {}
        changes["settings"] = method.set({**kept, **_settings(method, changes.get("settings")), **left})
    return (replace(options, **changes) if changes else options), running


def require_contributions(options: Options, what: str) -> None:
    """Refuse options without the contributions that a check or a comparison needs; `what` names it.

    Raises
    ------
    OptionError
        The method has none, or they are switched off.
    """
    if not methods.find(options.method).certificate:
        certified = [name for name in methods.names() if methods.find(name).certificate]
        raise OptionError(
            f"{what} needs contributions to the score, which {parameter('method', options.method)} does not have; "
            f"choose one of: {', '.join(certified)}"
        )
    refuse_idle(options, ["certificate"], f"{what} needs contributions to the score")


def refuse_others(options: Options, names: Collection[str], why: str) -> None:
    """Refuse options that are set where only the named ones have an effect; `why` says so.

    Raises
    ------
    OptionError
        There is one.
    """
    refuse_idle(options, [f.name for f in fields(Options) if f.name not in (*names, "settings")], why)
    if "settings" not in names and (given := _given(options)):
        raise idle(*next(iter(given.items())), why)


def _given(options: Options) -> dict[str, Any]:
    """Return the method's settings that are not at their defaults."""
    default = {f.name: f.default for f in fields(options.settings)}
    return {k: v for k, v in _by_name(options.settings).items() if v is not default[k] and np.any(v != default[k])}


def options_with_changes(options: Options | None, changes: Mapping[str, Any]) -> Options:
    """Return options with changes, where nothing is run: see `with_changes`."""
    (_,), left = changed(changes, Running())
    for name in set(changes) - set(left):
        raise OptionError(f"'{name}' says how a model runs; nothing is run here, leave it out")
    return with_changes(options, None, changes)[0]


def _settings(method: methods.Method, given: Any) -> dict[str, Any]:
    """Return settings by name: of a mapping, of texts NAME=VALUE, or of the method's own dataclass."""
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    if isinstance(given, method.settings):
        return _by_name(given)
    if isinstance(given, (list, tuple)):
        return method.parse(given)
    raise OptionError(f"{parameter('settings', given)} are none of {method.name}; give a mapping of names to values")


def _by_name(settings: Any) -> dict[str, Any]:
    return {f.name: getattr(settings, f.name) for f in fields(settings)}
