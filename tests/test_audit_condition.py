"""Conditions on rows: what they mean, and that nothing else is read from them."""

import pytest

from fgonnx.errors import OptionError
from fgonnx.jobs.audit.condition import parse

ROW = {
    "correct": False,
    "probability": 0.6,
    "score": 2.0,
    "margin": None,
    "predicted": "cat",
    "truth": None,
    "name": "a/b.png",
    "camera": "3",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("correct == false", True),
        ("correct == False or probability > 0.9", True),
        ("not correct == false", False),
        ("probability < 0.8 and score > 3", False),
        ("0.5 < probability < 0.7", True),
        ("predicted in ('cat', 'dog')", True),
        ("predicted not in ['cat']", False),
        ("name != 'a/b.png'", False),
        ("camera == '3'", True),
        ("score > -1", True),
        ("margin < 1", False),
        ("margin > 1", False),
        ("truth == none", True),
        ("'b.png' in name", None),
        ("true", True),
    ],
)
def test_a_condition_holds_or_not(text, holds):
    if holds is None:
        with pytest.raises(OptionError):
            parse(text, ("camera",))
    else:
        assert parse(text, ("camera",))(ROW) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true')", "is no comparison"),
        ("probability.__class__ == 1", "is no comparison"),
        ("(lambda: 1)() == 1", "is no comparison"),
        ("[x for x in (1,)] == 1", "is no comparison"),
        ("probability + 1 > 2", "is no comparison"),
        ("f'{score}' == 'x'", "is no comparison"),
        ("probability if correct else score", "is no comparison"),
        ("(x := 1) == 1", "is no comparison"),
        ("propability < 1", "did you mean 'probability'"),
        ("probability <", "is no condition"),
        ("", "is no condition"),
        ("(" * 500 + "1" + ")" * 500, "is no condition"),
        ("a" * 3000, "has 3000 characters"),
    ],
)
def test_what_is_none_is_refused(text, message):
    with pytest.raises(OptionError, match=message):
        parse(text)


def test_texts_and_numbers_have_no_order():
    with pytest.raises(OptionError, match="they have no order"):
        parse("predicted < 3")(ROW)
