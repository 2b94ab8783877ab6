"""Conditions on rows: what they mean, and that nothing else is read from them."""

import re

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


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ("truth == 'nope'", ("ant", "bee"), "compares truth with 'nope', which no row has; write a class of the model"),
        ("predicted != 'bea'", ("ant", "bee"), "did you mean 'bee'"),
        ("'nope' == truth", ("ant", "bee"), "compares truth with 'nope'"),
        ("not (correct and predicted in ('ant', 'nope'))", ("ant", "bee"), "compares predicted with 'nope'"),
        ("predicted == 1", ("ant", "bee"), "go by their names: write predicted == 'bee'"),
        ("predicted == 3", ("ant", "bee"), "write a class of the model"),
        ("predicted == -1", None, "no names: write an index, 0 to 1"),
        ("predicted == 'ant'", None, "no names: write an index, 0 to 1"),
        ("predicted == 2", None, "no names: write an index, 0 to 1"),
        ("probability == '0.8'", None, "probability is a number: write probability without quotes"),
        ("correct == 'false'", None, "write correct == true or correct == false"),
        ("camera == 3", None, "camera is a text: write '3', with quotes"),
        ("name in (3, 'a')", None, "name is a text: write '3', with quotes"),
    ],
)
def test_a_value_that_no_row_can_have_is_refused(text, labels, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        parse(text, ("camera",)).check(labels, 2)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("truth == 'ant' or predicted in ['bee']", ("ant", "bee")),
        ("predicted == 1 and truth != 0", None),
        ("truth == none or predicted != null", ("ant", "bee")),
        ("correct == 0 or correct == true", None),
        ("predicted == truth", ("ant", "bee")),
        ("probability == 1 and score != -2.5 and camera == '3' and name == 'a'", None),
        ("predicted in 'ant bee'", ("ant", "bee")),
    ],
)
def test_values_that_rows_can_have_are_fine(text, labels):
    parse(text, ("camera",)).check(labels, 2)


def test_texts_and_numbers_have_no_order():
    with pytest.raises(OptionError, match="they have no order"):
        parse("predicted < 3")(ROW)
