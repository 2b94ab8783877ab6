"""Explanations of texts that show themselves: in notebooks, as pages and as pictures."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgonnx import files as storage
from fgonnx.engine.model.load import LoadedModel, ModelLike
from fgonnx.errors import InputError
from fgonnx.explain.targets import Contrast, Target
from fgonnx.interactive import choosing
from fgonnx.jobs.record import averaged
from fgonnx.jobs.text import described, shaded, shares_said
from fgonnx.pictures.read.images import write_png
from fgonnx.pictures.show import words as drawing
from fgonnx.text.explainer import TextExplainer
from fgonnx.text.found import Found
from fgonnx.text.options import Texts
from fgonnx.wording import amount

if TYPE_CHECKING:
    from PIL.Image import Image

_SHOWN = 12  # texts in a notebook's cell


class TextExplanation(Sequence[Found]):
    """The explanations of texts; notebooks show them as words shaded by what they add.

    Parameters
    ----------
    found : sequence of Found
        One for each text: `words`, `values` of tokens, `score`, and all arrays.

    Examples
    --------
    >>> import fgonnx
    >>> e = fgonnx.explain("sentiment.onnx", text="a lovely film")  # doctest: +SKIP
    >>> [(word.text, round(value, 2)) for word, value in e[0].words]  # doctest: +SKIP
    [('a', 0.0), ('lovely', 1.0), ('film', 0.0)]
    """

    def __init__(self, found: Sequence[Found]) -> None:
        self._found = tuple(found)

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: Any) -> Any:
        if choosing.one(index):
            return self._found[choosing.number(index, len(self))]
        chosen = index if isinstance(index, slice) else choosing.several(index, len(self))
        return TextExplanation(self._found[chosen] if isinstance(chosen, slice) else [self._found[i] for i in chosen])

    def __iter__(self) -> Iterator[Found]:
        return iter(self._found)

    def __repr__(self) -> str:
        plural = "" if len(self) == 1 else "s"
        more = "; ..." if len(self) > 3 else ""
        return f"TextExplanation of {len(self)} text{plural}: {'; '.join(map(_title, self._found[:3]))}{more}"

    def html(self, sample: int = 0) -> str:
        """Return one text as HTML: shaded words with their numbers on hover."""
        found = self._found[sample]
        return drawing.as_html(shaded(found), _title(found), _lines(found))

    def picture(self, sample: int = 0, *, width: int = 900) -> Image:
        """Return one text as an image of PIL."""
        from PIL import Image

        found = self._found[sample]
        return Image.fromarray(drawing.drawn(shaded(found), _title(found), _lines(found), width=width))

    def to_dict(self, sample: int = 0) -> dict[str, Any]:
        """Return tokens and words of one text with what each adds, ready for JSON."""
        found = self._found[sample]
        own = {} if found.arrays.model_score is None else {"model_score": found.model_score}
        return {"described": found.described, "score": found.score, **own, **described(found)}

    def save(self, path: str | Path) -> Path:
        """Write all texts as one page (.html), or a single one as a picture (.png).

        Raises
        ------
        InputError
            The path has another ending, or several texts would go into one picture.
        """
        path = Path(path)
        if path.suffix.lower() == ".html":
            bodies = [self.html(i) for i in range(len(self))]
            storage.write_text(path, drawing.page(bodies, "Texts explained"))
        elif path.suffix.lower() == ".png" and len(self) == 1:
            found = self._found[0]
            write_png(path, drawing.drawn(shaded(found), _title(found), _lines(found)))
        else:
            raise InputError(f"'{path}': texts are written as .html, a single one also as .png")
        return path

    def _repr_html_(self) -> str:
        parts = [self.html(i) for i in range(min(len(self), _SHOWN))]
        rest = f"<p>{html.escape(str(len(self) - _SHOWN))} more texts</p>" if len(self) > _SHOWN else ""
        return "<hr>".join(parts) + rest


def _title(found: Found) -> str:
    return f"{found.described}  {amount(found.model_score)}"


def _lines(found: Found) -> list[str]:
    e = found.arrays
    lines = []
    if e.completeness is not None and e.contributions is not None:
        share = float(e.localised_share()[0])
        summed = "score" if e.model_score is None else "mean score"
        lines.append(
            f"{summed} {amount(found.score)} = sum of contributions, residual {float(e.completeness[0]):.1e}; "
            f"{share:.0%} of them on tokens"
        )
    remarks = filter(None, e.settings.get("remarks", ()))
    if e.model_score is not None:
        lines.append(averaged(found.score, found.model_score))
    return [*lines, shares_said(found.shares), *found.notes, *remarks]


def explain_texts(
    model: ModelLike | LoadedModel,
    given: Any,
    target: Target,
    contrast: Contrast,
    labels: Sequence[str] | None,
    changes: dict[str, Any],
) -> TextExplanation:
    """Explain a model's decision on texts; see `fgonnx.explain`."""
    own = {f.name: changes.pop(f.name) for f in fields(Texts) if f.name in changes}
    explainer = TextExplainer(model, texts=Texts(**own), labels=labels, changes=changes)
    return TextExplanation(explainer(given, target, contrast=contrast))
