"""What a page offers: `PageOptions`, frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgonnx.engine import methods
from fgonnx.engine.maps.aggregate import PROFILES, PSIS
from fgonnx.engine.rewrite.options import parse_list
from fgonnx.errors import OptionError
from fgonnx.fields import check_fields, documented, option
from fgonnx.view.runtime import VERSION
from fgonnx.wording import near, parameter

PAGE = "The page"
MOST_MAPS = 100
"""Graphs of a page: each is rewritten, which takes a second or so."""


@documented
@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """What a page offers: maps, and how they run."""

    methods: Sequence[str] = option(
        ("fullgrad",),
        "Methods to choose from; those that are one graph (docs/methods.md marks them).",
        panel=PAGE,
        metavar="A,B",
        parse=parse_list,
    )
    psis: Sequence[str] = option(
        PSIS,
        f"What their maps may show: {', '.join(PSIS)}, as far as a method has them.",
        panel=PAGE,
        metavar="A,B",
        parse=parse_list,
    )
    profiles: Sequence[str] = option(
        PROFILES[:1],
        f"Which layers they may show: {', '.join(PROFILES)}, where a method has layers.",
        panel=PAGE,
        metavar="A,B",
        parse=parse_list,
    )
    samples: Sequence[Path] = option(
        (),
        "Pictures of the gallery, files, folders or patterns. Repeatable. Default: drawn ones.",
        panel=PAGE,
        metavar="IMAGES",
        many=True,
        parse=lambda texts: tuple(Path(text) for text in texts),
    )
    ort_web: Path | None = option(
        None,
        f"Where onnxruntime-web is: the folder of the npm package, or its .tgz. Default: {VERSION}, which npm fetches "
        "once and the cache keeps.",
        panel=PAGE,
        metavar="PATH",
    )
    webgpu: bool = option(
        True,
        "Leave out what WebGPU needs (27 MB).",
        panel=PAGE,
        flag="--no-webgpu",
        switch=True,
        parse=lambda given: not given,
    )
    single_file: bool = option(
        False,
        "Write one HTML file that opens by a double click, on one thread and without WebGPU.",
        panel=PAGE,
        flag="--single-file",
        switch=True,
    )

    def __post_init__(self) -> None:
        for name in ("methods", "psis", "profiles"):
            given = getattr(self, name)
            object.__setattr__(self, name, tuple(dict.fromkeys((given,) if isinstance(given, str) else given)))
        object.__setattr__(self, "samples", tuple(Path(p) for p in self.samples))
        check_fields(self)
        known = {"methods": methods.names(), "psis": PSIS, "profiles": PROFILES}
        for name, possible in known.items():
            given = getattr(self, name)
            for one in given:
                if one not in possible:
                    raise OptionError(
                        f"{parameter(name, one)} does not exist{near(one, possible)}; choose from: "
                        f"{', '.join(possible)}"
                    )

    def choices(self) -> list[tuple[str, str, str]]:
        """Return method, psi and profile of every map, those that mean nothing left out, the first one first.

        Raises
        ------
        OptionError
            A method has none of the psis, is not one graph, or there are too many maps.
        """
        found: dict[tuple[str, str, str], None] = {}
        for name in self.methods:
            method = methods.find(name)
            if method.drive is not None:
                raise OptionError(
                    f"{name} needs several runs, and a page has one graph for each map; choose methods that "
                    "'fgonnx rewrite' takes"
                )
            psis = [psi for psi in self.psis if psi in method.psis]
            if not psis:
                raise OptionError(
                    f"the map of {name} is made with {' or '.join(method.psis)}, not {' or '.join(self.psis)}; give "
                    f"{parameter('psis', method.psis[0])}"
                )
            for psi in psis:
                found |= {(name, psi, profile): None for profile in (self.profiles if method.sites else PROFILES[:1])}
        if len(found) > MOST_MAPS:
            raise OptionError(f"that makes {len(found)} maps; a page has {MOST_MAPS} at most")
        return list(found)
