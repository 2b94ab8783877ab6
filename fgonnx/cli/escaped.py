"""Text of files as a terminal may show it: names, labels and paths may hold sequences that it would obey."""

from __future__ import annotations

import json
import re
from typing import Any

# C0 and C1 controls, marks and overrides of the direction, line separators, what has no width, lone surrogates, tags.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """Return a text with code points for control characters, except line breaks and tabs.

    Examples
    --------
    >>> printable("cat\x1b[2J")
    'cat\\x1b[2J'
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def as_json(found: Any, encoding: str) -> str:
    """Return an object as JSON; what a terminal would obey, or what the encoding lacks, is escaped as JSON does it.

    Examples
    --------
    >>> as_json(["\u202e", "\u00e9"], "utf-8")
    '[\\n  "\\\\u202e",\\n  "\u00e9"\\n]'
    """
    text = json.dumps(found, indent=2, ensure_ascii=encoding.replace("-", "").lower() != "utf8")
    return _CONTROLS.sub(lambda c: json.dumps(c[0])[1:-1], text)
