"""Options: what is explained, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fgonnx.engine import methods
from fgonnx.engine.maps import aggregate
from fgonnx.engine.walk import ENGINES
from fgonnx.errors import OptionError

HEADS = ("logits", "output")


FORMS = ("fast", "portable")


CERTIFICATE = ("saliency", "target", "score", "completeness", "contributions")


@dataclass(frozen=True)
class Options:
    """What a rewrite is asked for; see `rewrite` for the meaning of each."""

    method: str = "fullgrad"
    profile: str = "full"
    psi: str = "abs"
    head: str = "logits"
    output: str | None = None
    input: str | None = None
    input_shape: tuple[int, ...] | None = None
    layout: str | None = None
    target: int | None = None
    seed: bool = False
    outputs: tuple[str, ...] = CERTIFICATE
    expose: tuple[str, ...] = ()
    one_by_one: bool = False
    engine: str = "fgonnx"
    form: str = "fast"
    settings: Any = None

    def __post_init__(self) -> None:
        method = methods.find(self.method)
        if self.settings is None:
            object.__setattr__(self, "settings", method.set({}))
        for name, value, known in (
            ("profile", self.profile, aggregate.PROFILES),
            ("psi", self.psi, aggregate.PSIS),
            ("head", self.head, HEADS),
            ("engine", self.engine, ENGINES),
            ("form", self.form, FORMS),
        ):
            if value not in known:
                raise OptionError(f"{name}={value!r} does not exist; choose one of: {', '.join(known)}")
        check_method(method, self)


def check_method(method: methods.Method, o: Options) -> None:
    """Refuse what means nothing for a method: outputs that it does not have, a psi or profile without effect."""
    known = [*method.writes, "target", "score", "head"]
    known += ["completeness", "contributions", "bias_gradients"] * method.sites + ["input_gradient"] * method.gradient
    unknown = [name for name in o.outputs if name not in known]
    if unknown:
        raise OptionError(f"with {method.name} there is no output {unknown[0]!r}; choose from: {', '.join(known)}")
    if o.psi not in method.psis:
        raise OptionError(f"psi={o.psi!r} means nothing for {method.name}; leave it at {method.psis[0]!r}")
    if o.profile != "full" and not method.sites:
        raise OptionError(f"profile={o.profile!r} means nothing for {method.name}, which shows no layers; leave it out")
    if o.engine != "fgonnx" and method.modify is not None:
        raise OptionError(f"{method.name} changes the rules, which engine={o.engine!r} does not have; leave it out")
