"""Parse the expressions of `--where`, such as "texture > 0.1 and not flat", and evaluate them for one object.

The text is parsed with `ast`; nothing is executed. Allowed are the names of columns, numbers, texts, True and False,
comparisons, `and`, `or`, `not` and parentheses.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple, NoReturn

from dataset.errors import UserError

Kind = Literal["number", "condition", "text", "list of texts"]
Value = float | bool | str | tuple[str, ...]
Row = Mapping[str, Value]

SCORE_COLUMNS: Final[Mapping[str, Kind]] = {
    "coverage": "number",
    "contrast": "number",
    "texture": "number",
    "flatness": "number",
    "symmetry": "number",
    "visible_views": "number",
    "distinct_views": "number",
    "empty": "condition",
    "flat": "condition",
    "duplicate": "condition",
    "cluster": "text",
}
TABLE_COLUMNS: Final[Mapping[str, Kind]] = {
    "uid": "text",
    "license": "text",
    "source": "text",
    "flags": "list of texts",
    "seconds": "number",
    "peak_rss_mb": "number",
    "attempts": "number",
}
_COLUMNS: Final = {**SCORE_COLUMNS, **TABLE_COLUMNS}
_LONGEST: Final = 2000  # characters
_ORDER: Final[Mapping[type[ast.cmpop], Callable[[Value, Value], bool]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EQUALITY: Final[Mapping[type[ast.cmpop], Callable[[Value, Value], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_MEMBERSHIP: Final[Mapping[type[ast.cmpop], Callable[[Value, Value], bool]]] = {
    ast.In: lambda one, many: isinstance(many, tuple) and one in many,
    ast.NotIn: lambda one, many: isinstance(many, tuple) and one not in many,
}


class _Term(NamedTuple):
    """A part of an expression: its type, the function that evaluates it, and its text for messages."""

    kind: Kind
    value: Callable[[Row], Value]
    text: str


@dataclass(frozen=True)
class Expression:
    """A parsed expression. `names` are the columns that it uses."""

    text: str
    names: frozenset[str]
    _test: Callable[[Row], Value]

    @property
    def needs_scores(self) -> bool:
        """Whether the expression uses columns that `python -m dataset curate` writes."""
        return bool(self.names & SCORE_COLUMNS.keys())

    def matches(self, row: Row) -> bool:
        """Return whether the expression is true for an object. `row` has at least the columns `names`."""
        return bool(self._test(row))


@lru_cache(maxsize=16)
def parse_expression(text: str) -> Expression:
    """Parse an expression.

    Raises:
        UserError: The syntax is wrong, a column is unknown, or values of different types are compared. The message
            names the faulty part and the known columns.
    """
    if len(text) > _LONGEST:
        raise UserError(f"the expression of --where has {len(text)} characters; it must have at most {_LONGEST}")
    try:
        body = ast.parse(text.strip(), mode="eval").body
        parser = _Parser(text)
        term = parser.term(body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "nested too deeply"
        raise UserError(
            f'cannot parse the expression --where "{text}": {reason}; write it like "texture > 0.1 and not flat"'
        ) from error
    except ValueError as error:  # NUL characters; a UserError is one too
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot parse the expression --where {text!r}: {error}; remove this character") from error
    parser.require(term, "condition")
    return Expression(text, frozenset(parser.names), term.value)


class _Parser:
    """Converts the syntax tree of the expression `text` to functions, and collects the names of the columns."""

    def __init__(self, text: str) -> None:
        self.text, self.names = text, set[str]()

    def term(self, node: ast.expr) -> _Term:
        """Convert one node, with the nodes below it.

        Raises:
            UserError: The node is not allowed, or it is used wrongly.
        """
        match node:
            case ast.BoolOp():
                return self._boolean(node)
            case ast.UnaryOp(op=ast.Not()):
                return self._negation(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.Name():
                return self._column(node)
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return self._constant(node, value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return self._constant(node, -number)
            case _:
                self._refuse(node)

    def _refuse(self, node: ast.expr) -> NoReturn:
        self.fail(
            f"`{self._part(node)}` is not allowed; use columns, numbers, texts, comparisons, and, or, not, parentheses"
        )

    def _negation(self, node: ast.UnaryOp) -> _Term:
        inner = self.require(self.term(node.operand), "condition")
        return _Term("condition", lambda row: not inner.value(row), self._part(node))

    def _boolean(self, node: ast.BoolOp) -> _Term:
        tests = [self.require(self.term(value), "condition").value for value in node.values]
        combine = all if isinstance(node.op, ast.And) else any
        return _Term("condition", lambda row: combine(test(row) for test in tests), self._part(node))

    def _comparison(self, node: ast.Compare) -> _Term:
        terms = [self.term(value) for value in (node.left, *node.comparators)]
        pairs = [
            (self._operator(op, left, right), left.value, right.value)
            for op, left, right in zip(node.ops, terms, terms[1:], strict=False)
        ]
        return _Term(
            "condition",
            lambda row: all(compare(left(row), right(row)) for compare, left, right in pairs),
            self._part(node),
        )

    def _operator(self, op: ast.cmpop, left: _Term, right: _Term) -> Callable[[Value, Value], bool]:
        """Return the function of a comparison, after checking the types of its two sides."""
        if found := _ORDER.get(type(op)):
            self.require(left, "number")
            self.require(right, "number")
            return found
        if found := _EQUALITY.get(type(op)):
            if "list of texts" in (left.kind, right.kind):
                self.fail('flags can only be tested with in, like "clipped" in flags')
            self.require(right, left.kind)
            return found
        if found := _MEMBERSHIP.get(type(op)):
            self.require(left, "text")
            self.require(right, "list of texts")
            return found
        return self.fail("`is` is not allowed; compare with == or !=")

    def _constant(self, node: ast.expr, value: bool | float | str) -> _Term:
        kind: Kind = "text" if isinstance(value, str) else "condition" if isinstance(value, bool) else "number"
        return _Term(kind, lambda row: value, self._part(node))

    def _column(self, node: ast.Name) -> _Term:
        name = node.id
        if name not in _COLUMNS:
            self.fail(f"there is no column `{name}`; the columns are {', '.join(_COLUMNS)}")
        self.names.add(name)
        return _Term(_COLUMNS[name], lambda row: row[name], name)

    def require(self, term: _Term, kind: Kind) -> _Term:
        """Return `term` if it has the type `kind`.

        Raises:
            UserError: It has another type.
        """
        if term.kind != kind:
            self.fail(f"`{term.text}` is a {term.kind}, but a {kind} is needed there; {_hint(term.kind, kind)}")
        return term

    def fail(self, what: str) -> NoReturn:
        """Raise UserError.

        Raises:
            UserError: Always.
        """
        raise UserError(f'in the expression --where "{self.text}", {what}')

    def _part(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.text.strip(), node) or ast.unparse(node)


def _hint(found: Kind, needed: Kind) -> str:
    if "list of texts" in (found, needed):
        return 'write it like "clipped" not in flags'
    if needed == "condition":
        return "compare it, as in texture > 0.1"
    of_kind = ", ".join(name for name, kind in _COLUMNS.items() if kind == needed)
    return f"columns of this type are {of_kind}"
