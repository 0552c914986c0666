"""Expressions of --where: their values, and the messages for wrong ones."""

import pytest

from dataset.errors import UserError
from dataset.reading.expression import SCORE_COLUMNS, TABLE_COLUMNS, Row, parse_expression
from dataset.reading.filters import Filters

ROW: Row = {
    "texture": 0.2,
    "flatness": 0.95,
    "symmetry": 1.0,
    "distinct_views": 8,
    "flat": True,
    "empty": False,
    "duplicate": False,
    "cluster": "chair",
    "license": "CC0-1.0",
    "flags": ("clipped", "near-black"),
    "seconds": 3.5,
    "uid": "chair",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("texture > 0.1 and not flat", False),
        ("texture > 0.1 and flat", True),
        ("texture>0.1 or empty", True),
        ("not (flat or empty)", False),
        ("not not flat", True),
        ("0.1 < texture <= 0.2", True),
        ("0.1 < texture < 0.2", False),
        ("distinct_views >= 8", True),
        ("distinct_views == 8 and distinct_views != 9", True),
        ("texture > -1", True),
        ("texture > .1e-0", True),
        ("flat == True", True),
        ("empty != False", False),
        ('license == "CC0-1.0"', True),
        ("license != 'CC0-1.0'", False),
        ("cluster == uid", True),
        ('"clipped" in flags', True),
        ('"noisy" not in flags and "clipped" not in flags', False),
        ("  flat\n", True),
        ("(\ntexture > 0.1\n and flat)", True),
        ("True", True),
        ("empty and flat or symmetry == 1", True),
        ("texture > flatness", False),
    ],
)
def test_values(text: str, expected: bool) -> None:
    assert parse_expression(text).matches(ROW) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("textur > 0.1", r"there is no column `textur`; the columns are coverage, contrast, texture, .*flags, seconds"),
        ("texture > ", 'cannot parse the expression --where "texture > ": invalid syntax; write it like'),
        ("", "cannot parse the expression"),
        ("texture = 0.1", "cannot parse the expression"),
        ("texture && flat", "cannot parse the expression"),
        ("flat; flat", "cannot parse the expression"),
        ("texture\0", "null bytes"),
        ("texture", "`texture` is a number, but a condition is needed there; compare it"),
        ("not texture", "`texture` is a number"),
        ("flat and 1", "`1` is a number"),
        ("flat > 0.1", "`flat` is a condition, but a number is needed there; columns of this type are coverage"),
        ("license > 'a'", "`license` is a text, but a number"),
        ("license == 1", "`1` is a number, but a text is needed"),
        ("flags == 'clipped'", 'flags can only be tested with in, like "clipped" in flags'),
        ("flags", 'a condition is needed there; write it like "clipped" not in flags'),
        ("'a' in license", 'write it like "clipped" not in flags'),
        ("texture in flags", "`texture` is a number, but a text"),
        ("flat is True", "`is` is not allowed"),
        ("texture + 1 > 2", r"`texture \+ 1` is not allowed; use columns, numbers"),
        ("abs(texture) > 1", r"`abs\(texture\)` is not allowed"),
        ("__import__('os').system('x')", "is not allowed"),
        ("(lambda: flat)()", "is not allowed"),
        ("[flat for x in flags]", "is not allowed"),
        ("flat if flat else empty", "is not allowed"),
        ("license.real == 1", r"`license\.real` is not allowed"),
        ("flags[0] == 'a'", r"`flags\[0\]` is not allowed"),
        ("(flat := True)", "is not allowed"),
        ("f'{flat}' == license", "is not allowed"),
        ("texture > 1j", "`1j` is not allowed"),
        ("license == b'x'", "is not allowed"),
        ("None == flat", "`None` is not allowed"),
        ("~flat", "`~flat` is not allowed"),
        ("__class__", "there is no column `__class__`"),
        ("(" * 300 + "flat" + ")" * 300, "cannot parse the expression"),
        ("flat or " * 300 + "flat", "has 2404 characters; it must have at most 2000"),
    ],
)
def test_wrong_expressions_are_explained(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_expression(text)


def test_columns_that_need_scores_are_known() -> None:
    assert parse_expression("texture > 0.1 or seconds < 3").needs_scores
    assert not parse_expression("seconds < 3 and license == 'CC0-1.0'").needs_scores
    assert parse_expression("texture > 0.1 and texture < 1 and uid == 'a'").names == {"texture", "uid"}
    assert not SCORE_COLUMNS.keys() & TABLE_COLUMNS.keys()


def test_filters_check_the_expression_at_once() -> None:
    assert Filters(where="not flat") == Filters(where="not flat") != Filters()
    with pytest.raises(UserError, match="there is no column `flt`"):
        Filters(where="not flt")
