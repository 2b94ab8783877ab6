"""What a class name is, and the keys of a model's metadata under which names are kept."""

from __future__ import annotations

import re

METADATA_KEY = "fgonnx.labels"
"""Key of a model's metadata that holds the labels, a JSON list of strings."""

ULTRALYTICS_KEY = "names"
"""Key of a model's metadata under which Ultralytics writes labels, a dict of Python."""

HF_LABELS_KEY = "id2label"
"""Key of a model's metadata under which tools of Hugging Face write labels, an object of JSON or a dict of Python."""

BACKGROUND = "background"
"""What the class of nothing is called."""

WNID = re.compile(r"(n\d{8})[\s,:]+(?=\S)")
"""A WordNet identifier before a name, with what separates the two."""


class Label(str):
    """A readable class name which may remember its WordNet identifier.

    Attributes
    ----------
    wnid : str or None
        Such as ``"n01440764"``; a class of ImageNet may be named by it.
    """

    wnid: str | None
    __slots__ = ("wnid",)

    def __new__(cls, text: str, wnid: str | None = None) -> Label:
        """Make a label from readable text."""
        label = super().__new__(cls, text)
        label.wnid = wnid
        return label

    @classmethod
    def from_line(cls, line: str) -> Label:
        """Split ``"n01440764 tench, Tinca tinca"`` into wnid and text; other lines are text."""
        line = line.strip()
        match = WNID.match(line)
        return cls(line[match.end() :], match.group(1)) if match else cls(line)


class Unnamed(Label):
    """The number of a class that a mapping of names leaves out."""

    __slots__ = ()
