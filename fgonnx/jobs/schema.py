"""The layout of a record, stated once: what `explain` writes as JSON and `audit` as Parquet.

A kind is "text", "int", "float", "bool", "json" (any value), "bytes", a list `[kind]`, a `Struct` or a `Named`. A
question mark behind a name says that the value may be null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCHEMA = 2
"""Version of the record's layout; it changes when a key changes its meaning or goes away."""

BOTH, EXPLAIN, AUDIT = "both", "explain", "audit"


@dataclass(frozen=True)
class Struct:
    """An object with fixed keys.

    Attributes
    ----------
    fields : mapping of str to kind
        By name, with a question mark behind it where the value may be null.
    """

    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Named:
    """An object whose keys are data: in Parquet a map.

    Attributes
    ----------
    kind : kind
        Of every value.
    null : bool
        Whether values may be null.
    """

    kind: Any
    null: bool = False


@dataclass(frozen=True)
class Field:
    """One key of a record.

    Attributes
    ----------
    name : str
        The key.
    kind : any
        Its kind.
    help : str
        What it holds.
    null : bool
        Whether it may be null.
    of : {"both", "explain", "audit"}
        Whose records have it.
    optional : bool
        Whether JSON may leave it out.
    """

    name: str
    kind: Any
    help: str
    null: bool = False
    of: str = BOTH
    optional: bool = False


_ENTRY = Struct({"index": "int", "position": ["int"], "label?": "text", "score?": "float", "probability?": "float"})
_FILE = Struct({"path": "text", "sha256": "text"})
_SITE = Struct(
    {
        "name": "text",
        "node": "text",
        "op_type": "text",
        "kind": "text",
        "grid": ["int"],
        "in_map": "bool",
        "contribution?": "float",
        "share?": "float",
    }
)
_MAP = Struct(
    {
        "sha256": "text",
        "shape": ["int"],
        "dtype": "text",
        "min": "float",
        "max": "float",
        "picture?": ["int"],
        "frame?": ["float"],
    }
)

PLACES = ("border", "top_left", "top_right", "bottom_left", "bottom_right")
"""Where evidence may lie: on the border, an eighth of each side wide, and in the corners, a quarter of it wide."""

FIELDS = (
    Field("schema", "int", "2; changes when a key changes its meaning or goes away"),
    Field("id", "text", "of the record: a hash of what was asked, so that asking again gives the same"),
    Field("time", "text", "UTC: when the record was made; in an audit, when its plan was fixed"),
    Field("run", "text", "id of the audit", of=AUDIT),
    Field(
        "row",
        Struct({"number": "int", "name": "text", "shard": "int"}),
        "number, name and shard in the plan of the audit",
        of=AUDIT,
    ),
    Field(
        "input",
        Struct({"path": "text", "row?": "int", "member?": "text", "sha256?": "text"}),
        "`path`; `row` of an array or table; `member` of a tar file; `sha256` of the file or of the picture's bytes",
    ),
    Field(
        "model",
        Struct(
            {
                "path?": "text",
                "sha256": "text",
                "external": [_FILE],
                "name?": "text",
                "version?": "text",
                "producer?": "text",
                "opset": "int",
            }
        ),
        "`path`, `sha256` of the file, `external`: files of weights with their hashes; `name`, `version`, `producer` "
        "and "
        "`opset` as the file says",
    ),
    Field(
        "versions",
        Struct({"fgonnx": "text", "onnxruntime": "text", "onnx": "text", "numpy": "text", "openvino?": "text"}),
        "of `fgonnx`, `onnxruntime`, `onnx`, `numpy`, and of `openvino` where it was asked for",
    ),
    Field("providers", ["text"], "execution providers of ONNX Runtime, in order; empty for OpenVINO"),
    Field(
        "environment",
        Struct(
            {
                "os": "text",
                "python": "text",
                "processor?": "text",
                "features": ["text"],
                "runtime_build": "text",
                "device": "text",
                "threads?": "int",
                "tf32?": "bool",
            }
        ),
        "machine and build: `os`, `python`, `processor` and its `features`, `runtime_build`, `device`, `threads` "
        "(`null`: all cores), `tf32` (`null` without CUDA)",
    ),
    Field(
        "settings",
        "json",
        "`method`, `profile`, `psi`, `head`, `output`, `input`, and those of the method, such as `samples`, `sigma`, "
        "`random_state`; `target` as requested, and `target_sha256` of the file it names; `picture`; if given, "
        "`runtime`, `contrast`, `bind`, `rate`, `channel`, `span`; in an audit also `seed`, `condition`",
    ),
    Field(
        "preprocessing", "json", "the complete description, in the form that `fgonnx.Preprocessing` reads", null=True
    ),
    Field(
        "runtime",
        Struct({"name": "text", "version": "text", "providers?": ["text"], "device?": "text", "precision?": "text"}),
        "what explained: `name`, `version`; `providers` of ONNX Runtime, or `device` and `precision` of OpenVINO",
        null=True,
    ),
    Field(
        "tensor",
        Struct({"sha256": "text", "shape": ["int"], "dtype": "text"}),
        "what was fed: `sha256` of its bytes in C order, `shape` without the batch, `dtype`",
        null=True,
    ),
    Field("notes", ["text"], "conversions of the picture, changes to the graph"),
    Field(
        "chosen",
        ["text"],
        "names of the settings that the method chose by itself, such as `layer`; `settings` has them",
    ),
    Field(
        "explained",
        Struct({"value": "text", "before?": "text", "shape?": ["int"], "described": "text"}),
        "`value`: name of the tensor; `before`: the final operator that was stripped, such as `Softmax`; `shape`: of "
        "the head, for one sample; `described`: the target in words",
        null=True,
    ),
    Field(
        "top5", [_ENTRY], "the largest entries: `index` (flat), `position` in the head, `label`, `score`, `probability`"
    ),
    Field("detected", "text", "of a detector: class and score of its best detection", null=True, optional=True),
    Field(
        "target",
        _ENTRY,
        "the explained entry, with the same keys; `null` if the target is not a single entry",
        null=True,
    ),
    Field(
        "contrast",
        _ENTRY,
        "with `--contrast`: the entry subtracted from it, with the same keys",
        null=True,
        optional=True,
    ),
    Field("score", "float", "its value; with a contrast the difference of the two", null=True),
    Field(
        "model_score",
        "float",
        "with `smooth-fullgrad`, whose `score` is a mean over noisy copies: that of the sample itself",
        optional=True,
    ),
    Field(
        "truth",
        Struct({"index": "int", "label?": "text"}),
        "the true class, where the data say it",
        null=True,
        of=AUDIT,
    ),
    Field("correct", "bool", "whether the largest entry is the true class", null=True, of=AUDIT),
    Field(
        "completeness",
        Struct({"residual": "float", "relative?": "float", "rounding": "float"}),
        "`residual` = score - sum of contributions; `relative` = residual relative to the score; `rounding` = "
        "relative to "
        "the sum of absolute contributions; `null` for methods without a certificate",
        null=True,
    ),
    Field(
        "delta",
        "float",
        "for path methods: sum of the attribution - difference of the scores at the ends of the path; else `null`",
        null=True,
    ),
    Field(
        "localised",
        Struct({"amount": "float", "share": "float"}),
        "`amount`: sum of the contributions shown in the map; `share`: their share of the absolute contributions, 0..1",
        null=True,
    ),
    Field(
        "sites",
        [_SITE],
        "for full-gradient methods, else empty; in network order, starting with the input: `name`, `node`, `op_type`, "
        "`kind`, `grid`, `in_map`, `contribution`, `share`",
    ),
    Field(
        "features",
        Struct({"names": ["text"], "values": ["float"], "contributions": ["float"], "biases": "float"}),
        "of a row of a table: `names` and `values` of its features, the `contributions` of each to the score, and of "
        "the `biases` of the network",
        optional=True,
    ),
    Field(
        "text",
        "json",
        "of a text: `text`; its `tokens` (`id`, `piece`, `span` in characters, `part` of a pair, `special`, `value`) "
        "and `words` (`text`, `tokens`, `value`), where a value is what it adds to the score; the sum on `special` "
        "tokens and on `padding`, and the `shares` of the map on words, special tokens and padding",
        optional=True,
    ),
    Field(
        "series",
        Struct(
            {
                "channels": ["text"],
                "units?": "text",
                "recording?": "text",
                "rate?": "float",
                "start": "int",
                "padded": "int",
                "shares": ["float"],
                "inside?": "float",
                "peaks": ["int"],
            }
        ),
        "of channels over time: their names and `units`; which `recording` of its file; steps per second (`rate`), the "
        "first step (`start`), how many of the last are padding (`padded`); the share of the map of every channel "
        "(`shares`) and of the network's layers (`inside`), and the step where each lane is strongest (`peaks`)",
        optional=True,
    ),
    Field(
        "slide",
        "json",
        "with `--slide`: `window` and `hop` in steps, the states `carried`, where the `strongest` window begins, and "
        "of each of the `windows` its `start`, `score`, `index`, `residual`, `rounding` and share `localised`; the "
        "rest of the record is that of the strongest window, the map that of the recording",
        of=EXPLAIN,
        optional=True,
    ),
    Field(
        "blocks",
        [Struct({"name": "text", "sum": "float", "rounding": "float"})],
        "for `fullgrad+`: of each block its `name`, the `sum` of its contributions, and what it misses of the score, "
        "relative to them",
        null=True,
        optional=True,
    ),
    Field(
        "map",
        _MAP,
        "`sha256` of its bytes in C order, `shape`, `dtype`, `min`, `max`; `picture`: height and width of the whole "
        "picture; `frame`: left, top, right and bottom edge of the map in pixels of the whole picture",
        null=True,
    ),
    Field(
        "grid",
        ["float"],
        "the map on 16 x 16 cells, row by row: shares of its absolute sum; of rows that are no pictures, cell n has "
        "what lies on features or ids n, n + 256, ...",
        null=True,
        of=AUDIT,
    ),
    Field(
        "evidence",
        Struct({**{f"{place}?": "float" for place in PLACES}, "object?": "float", "object_area?": "float"}),
        "shares of the absolute map: on the `border`, in the corners (`null` where rows are no pictures), "
        "on the `object` where a box or mask says where "
        "it "
        "is; `object_area`: its share of the picture",
        null=True,
        of=AUDIT,
    ),
    Field(
        "measures",
        Named("float", null=True),
        "with `--measures`: every quantity of every measure of the map, as `MEASURE.QUANTITY`; `null` where there is "
        "none; else empty",
        of=AUDIT,
    ),
    Field("slices", Named("text"), "columns of the data that make cohorts, such as camera or site", of=AUDIT),
    Field("error", "text", "why there is no result", null=True, of=AUDIT),
    *(
        Field(name, "text", "free text", null=True, of=AUDIT)
        for name in ("operator", "purpose", "reviewer", "decision")
    ),
    Field("comment", "text", "free text", null=True, of=AUDIT),
    Field(
        "pictures",
        Struct({"seen": "bytes", "overlay?": "bytes"}),
        "small JPEG pictures: what the model sees, and the map over it; `null` with `--no-pictures`",
        null=True,
        of=AUDIT,
    ),
    Field(
        "files",
        Struct({"picture?": "text", "map?": "text"}),
        "names of the `picture` and the `map`; in an audit, the map is `FILE/NAME` of an `.npz`",
        null=True,
    ),
    Field(
        "command",
        ["text"],
        "the command that explains the sample again, as a list of arguments; paths are relative as they were given",
        of=EXPLAIN,
    ),
)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record, which `record.schema.json` in this folder holds."""
    properties = {f.name: {"description": f.help, **_json_kind(f.kind, null=f.null)} for f in FIELDS}
    properties["schema"]["const"] = SCHEMA
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "fgonnx/record.schema.json",
        "title": "Record of an explanation",
        "type": "object",
        "properties": properties,
        "required": [f.name for f in FIELDS if f.of == BOTH and not f.optional],
    }


def _json_kind(kind: Any, *, null: bool = False) -> dict[str, Any]:
    if kind == "json":
        return {}
    if isinstance(kind, list):
        made: dict[str, Any] = {"type": "array", "items": _json_kind(kind[0])}
    elif isinstance(kind, Struct):
        names = {name.rstrip("?"): _json_kind(k, null=name.endswith("?")) for name, k in kind.fields.items()}
        made = {
            "type": "object",
            "properties": names,
            "required": [name for name in kind.fields if not name.endswith("?")],
            "additionalProperties": False,
        }
    elif isinstance(kind, Named):
        made = {"type": "object", "additionalProperties": _json_kind(kind.kind, null=kind.null)}
    else:
        named = {"text": "string", "bytes": "string", "int": "integer", "float": "number", "bool": "boolean"}
        made = {"type": named[kind]}
    return {**made, "type": [made["type"], "null"]} if null else made


def table(of: str = BOTH) -> str:
    """Return the table of keys in Markdown, as the pages have it.

    Parameters
    ----------
    of : {"both", "audit"}
        Of the records of `explain`, or of what an audit adds.
    """
    chosen = [f for f in FIELDS if (f.of == AUDIT) == (of == AUDIT)]
    return "| key | content |\n| --- | --- |\n" + "".join(f"| `{f.name}` | {f.help} |\n" for f in chosen)
