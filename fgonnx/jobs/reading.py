"""How files become samples: preprocessing, labels, channel and span of a recording."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from fgonnx import labels
from fgonnx.engine.graph.lookups import holds_ids
from fgonnx.engine.graph.values import dims_of, dtype_of
from fgonnx.engine.model.layouts import samples_first
from fgonnx.engine.model.load import LoadedModel
from fgonnx.engine.normal.whole import allows
from fgonnx.engine.rewrite.options import NEXT, TARGETS, Options
from fgonnx.errors import OptionError, PreprocessingError, TargetError
from fgonnx.fields import MODEL, check_fields, check_idle, documented, option, pairs
from fgonnx.pictures.read import exporters, presets
from fgonnx.pictures.read.complete import complete
from fgonnx.pictures.read.preprocess import Preprocessing
from fgonnx.pictures.read.presets import PRESETS
from fgonnx.wording import parameter, whole

SOUND = ("rate", "channel", "span", "channels", "units", "by", "pad", "slide", "carry", "axes")
"""Fields for recordings and tables only."""
OF_FILES = ("rate", "channel", "span", "by")
"""Those of them that say how a file of recordings is read; the others name what an array holds."""
OF_FORMS = ("rate", "channel", "span", "channels", "by", "pad")
"""Those that commands have which explain sample by sample and draw no lanes."""
OF_SERIES = ("rate", "channel", "span", "by", "pad", "slide", "axes")
"""Those that mean nothing for the rows of a table."""

TIME = "time"
"""What the axis of a spectrogram is called that is drawn across."""
_PADS = ("zero", "edge")


def parse_names(text: str) -> tuple[str, ...]:
    """Parse names with commas between them.

    Raises
    ------
    OptionError
        One is empty, or there twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    _check_names(names)
    return names


def _check_names(names: Sequence[str]) -> None:
    if not names or any(not name for name in names):
        raise OptionError(f"{parameter('channels', ','.join(names))} has an empty name; write for example x,y,z")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise OptionError(f"{parameter('channels', ','.join(names))} names '{twice}' twice; give every channel once")


def parse_span(text: str) -> tuple[int, int]:
    """Parse a part of a recording, FIRST:END in samples.

    Raises
    ------
    OptionError
        The text does not have that form.
    """
    first, end = (whole(part) for part in (text.partition(":")[0], text.partition(":")[2]))
    if first is None or end is None or first < 0:
        raise OptionError(f"span '{text}' is not a part of a recording; write for example 4000:4576, in samples")
    return first, end


def parse_carried(texts: Sequence[str]) -> dict[str, str]:
    """Parse states that are carried, INPUT=OUTPUT.

    Raises
    ------
    OptionError
        A text does not have that form.
    """
    return dict(pairs(texts, "state=stateN"))


def _idle_carry(reading: Any) -> str:
    return "" if reading.slide is not None else "only windows that slide carry a state"


@documented
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files become samples of a model's input, and the names of its classes."""

    preprocess: str | Path | None = option(
        None,
        f"How a picture becomes numbers: a preset ({', '.join(PRESETS)}), changes to one (imagenet,size=256), "
        "numbers (scale=1/255,mean=0.5,std=0.5) or a .json file. Default: the model's metadata; it is never guessed.",
        panel=MODEL,
        metavar="HOW",
        parse=str,
    )
    labels: Path | None = option(
        None,
        "Class names: .txt (one a line), .csv or .json. Default: the model's metadata.",
        panel=MODEL,
        metavar="FILE",
    )
    rate: float | None = option(
        None,
        "Samples per second that the model takes; recordings of another rate are refused. Default: the metadata.",
        panel=MODEL,
        metavar="HZ",
        above=0,
    )
    channel: int | None = option(None, "Channel of a recording, from 0.", panel=MODEL, least=0)
    channels: tuple[str, ...] | None = option(
        None,
        "Columns of a table that are channels or features, in the model's order; without a header, names for them. "
        "Default: all columns but times and ids.",
        panel=MODEL,
        metavar="NAME,NAME",
        parse=parse_names,
    )
    units: str | None = option(None, "Units of the values, such as mV, for pictures and records.", panel=MODEL)
    axes: tuple[str, ...] | None = option(
        None,
        "What the two axes of a spectrogram's map are, one of them time: frequency,time. It is drawn with time across.",
        panel=MODEL,
        metavar="NAME,NAME",
        parse=parse_names,
    )
    by: str | None = option(
        None,
        "Column that tells the recordings of a table apart.",
        panel=MODEL,
        metavar="COLUMN",
    )
    pad: str | None = option(
        None,
        "What a recording that is too short is filled with at its end: zero, edge (its last values) or a number. "
        "Default: it is refused.",
        panel=MODEL,
        metavar="WITH",
    )
    span: tuple[int, int] | None = option(
        None,
        "Samples of a recording, or rows of a table, to explain, such as 4000:4576.",
        panel=MODEL,
        metavar="FIRST:END",
        parse=parse_span,
        joined=":",
        least=0,
    )

    slide: int | None = option(
        None,
        "Explain a long recording window by window, and draw one map: steps from one window to the next.",
        panel=MODEL,
        metavar="STEPS",
        least=1,
    )
    carry: Mapping[str, str] | None = option(
        None,
        "With --slide: the state that an input of a window takes over from an output of the window before. Repeatable.",
        panel=MODEL,
        metavar="INPUT=OUTPUT",
        parse=parse_carried,
        many=True,
        idle=_idle_carry,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.preprocess is not None:
            object.__setattr__(self, "preprocess", str(self.preprocess))
        check_idle(self)
        if self.rate is not None and self.rate.is_integer():
            object.__setattr__(self, "rate", int(self.rate))  # as whole numbers are written
        if self.channels is not None:
            _check_names(self.channels)
        if self.axes is not None and (len(self.axes) != 2 or TIME not in self.axes or len(set(self.axes)) == 1):
            raise OptionError(
                f"{parameter('axes', ','.join(self.axes))} does not name two axes, of which one is {TIME}; write for "
                f"example frequency,{TIME}"
            )
        if self.pad is not None and self.pad not in _PADS and not _is_number(self.pad):
            raise OptionError(f"{parameter('pad', self.pad)} is neither {', '.join(_PADS)} nor a number")
        if self.span is not None and self.span[0] >= self.span[1]:
            raise OptionError(
                f"{parameter('span', self.span)} holds no sample; give the first one and the end behind it"
            )

    def names(self) -> tuple[str, ...] | None:
        """Return the class names of the given file; None without one."""
        return labels.load(self.labels) if self.labels is not None else None

    def sound(self) -> dict[str, Any]:
        """Return the options for recordings, ready for JSON."""
        given = {name: getattr(self, name) for name in SOUND}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in given.items() if v is not None}

    def preprocessing(
        self, loaded: LoadedModel, input: str | None, *, required: bool, shape: Sequence[int] | None = None
    ) -> tuple[Preprocessing | None, str]:
        """Return the complete preprocessing of a model's pictures, and its origin.

        Parameters
        ----------
        loaded : LoadedModel
            The model, whose metadata counts where nothing was given.
        input : str or None
            Name of the input.
        required : bool
            Whether there are pictures.
        shape : sequence of int, optional
            The shape that is given for the input, with its batch: it counts where the model leaves a size free.

        Raises
        ------
        PreprocessingError
            It is required and not known, or does not fit the model.
        """
        text = loaded.preprocessing_json()
        if self.preprocess is not None:
            found, origin = presets.parse(str(self.preprocess)), "given"
        elif text is not None:
            found, origin = Preprocessing.from_json(text), "the model's metadata"
        elif (written := _written(loaded, input, shape, required=required)) is not None:
            found, origin = written
        elif required and holds_ids(loaded.ir, loaded.input(input)):
            raise PreprocessingError(
                f"{loaded.name}: its input takes ids of tokens, not pictures; 'fgonnx explain' takes texts for it"
            )
        elif required:
            raise PreprocessingError(f"{loaded.name}: {unknown_preprocessing()}")
        else:
            return None, ""
        return completed(found, loaded.input(input), shape), origin


def _written(
    loaded: LoadedModel, input: str | None, shape: Sequence[int] | None, *, required: bool
) -> tuple[Preprocessing, str] | None:
    """Return what an exporter wrote, and where; where no picture needs it, what cannot be done says nothing."""
    dims = _sizes(loaded.input(input), shape)
    height, width = dims[1:3] if len(dims) == 4 and dims[3] in (1, 3, 4) else [None, None, *dims][-2:]
    try:
        return exporters.preprocessing(loaded.ir.metadata_props, loaded.folder, (height, width))
    except PreprocessingError:
        if required:
            raise
        return None


def completed(found: Preprocessing, value: ir.Value, shape: Sequence[int] | None = None) -> Preprocessing:
    """Return a preprocessing with what an input of a model says of it, and the shape that is given for it.

    Raises
    ------
    PreprocessingError
        The input is not a picture, or contradicts it.
    """
    return complete(found, _sizes(value, shape), dtype_of(value).numpy())


def _sizes(value: ir.Value, shape: Sequence[int] | None) -> list[int | None]:
    """Return the sizes of an input, its free ones behind the batch from a shape that is given for it."""
    dims = [d if isinstance(d, int) else None for d in dims_of(value)]
    if shape is None or len(shape) != len(dims):  # said where the graph is made
        return dims
    return [*dims[:1], *(g if d is None else d for d, g in zip(dims[1:], shape[1:], strict=True))]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def agreed_layout(
    given: str | None, preprocessing: Preprocessing | None, loaded: LoadedModel, input: str | None
) -> str | None:
    """Return the layout that the user and the preprocessing agree on; None where neither says.

    Parameters
    ----------
    given : str or None
        The user's choice (`layout`).
    preprocessing : Preprocessing or None
        How pictures become arrays, complete.
    loaded : LoadedModel
        The model.
    input : str or None
        Name of the input.

    Raises
    ------
    OptionError
        They contradict each other.
    """
    if preprocessing is None or preprocessing.layout is None:
        return given
    if given is not None and samples_first(given) != preprocessing.layout:
        raise OptionError(
            f"{loaded.name}: {parameter('layout', given)} contradicts the preprocessing, which writes pictures as "
            f"{preprocessing.layout}; give one of the two, or the same in both (--preprocess NAME,layout=...)"
        )
    if preprocessing.layout == "NHW" and not allows(loaded, "NHW", input):
        return given  # rows in grey are read as a sequence
    return given or preprocessing.layout


def unknown_preprocessing() -> str:
    """Return the message for unknown preprocessing."""
    usual, changed, numbers = (
        parameter("preprocess", how) for how in ("imagenet", "imagenet,size=256", "scale=1/255,mean=0.5,std=0.5")
    )
    return (
        "the model does not say how its pictures were prepared (no 'fgonnx.preprocessing' in its metadata), and a "
        f"guess would explain another picture than yours. Give one of the presets {', '.join(PRESETS)} "
        f"({usual} suits most PyTorch classifiers, tf most TensorFlow ones), changes to one ({changed}), or numbers "
        f"({numbers})"
    )


def aligned_labels(
    given: Sequence[str] | None, stored: Sequence[str] | None, entries: int
) -> tuple[tuple[str, ...] | None, str | None]:
    """Return one name per entry of the head, and a note if names were added, dropped or are missing.

    Parameters
    ----------
    given : sequence of str or None
        Labels given by the user; their number must fit.
    stored : sequence of str or None
        Labels of the model's metadata; ignored if their number does not fit.
    entries : int
        Entries of the head.

    Raises
    ------
    TargetError
        The given labels do not fit.
    """
    if given is not None:
        return _aligned(given, entries)
    if stored is None:
        return None, None
    try:
        return _aligned(stored, entries)
    except TargetError:
        named = "1 class" if len(stored) == 1 else f"{len(stored)} classes"
        return None, f"those found with the model name {named}, the model has {entries}: not used"


def _aligned(names: Sequence[str], entries: int) -> tuple[tuple[str, ...], str | None]:
    found, note = labels.align(names, entries)
    return found, "; ".join(filter(None, (note, labels.gaps_in(names)))) or None


def targeted(options: Options, target: str | None, names: Sequence[str]) -> Options:
    """Return the options of a written file whose target, and contrast, may be names of classes.

    Parameters
    ----------
    options : Options
        The options, without a target.
    target : str or None
        What the file explains: a word of the engine ("argmax", "input"), an index or a name; None leaves it open.
    names : sequence of str
        Names of the classes.

    Raises
    ------
    TargetError
        There is no class of that name.
    """
    if target in TARGETS:
        options = replace(options, target=target)
    elif target is not None:  # the engine checks the index against the head
        options = replace(options, target=labels.resolve(target, names))
    if isinstance(options.contrast, str) and options.contrast != NEXT:
        options = replace(options, contrast=labels.resolve(options.contrast, names))
    return options
