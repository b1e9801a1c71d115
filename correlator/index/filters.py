r"""Filters as people write them: ``service = ledger and (status = failed or amount.EUR >= 1000)``. Pure.

The grammar (ISO/IEC 14977 EBNF; white space may stand between any two tokens, words in quotes are taken in any case):

    filter    = all, { "or", all } ;
    all       = one, { "and", one } ;
    one       = "not", one | "(", filter, ")" | condition ;
    condition = name, ( "=" | "!=" ), value
              | name, [ "not" ], "in", "(", value, { ",", value }, ")"
              | "text", "~", value
              | "time", order, time
              | amount, ( "=" | "!=" | order ), number
              | amount, [ "not" ], "in", number, "..", number ;
    name      = "trail" | "transaction" | "tenant" | "kind" | "status" | "service" | "event" | "key.", value ;
    amount    = "amount.", currency ;
    order     = "<" | "<=" | ">" | ">=" ;
    value     = word | quoted ;
    quoted    = '"', { any character but '"' and "\" | "\", ( '"' | "\" ) }, '"' ;
    word      = any characters but white space, quotes, brackets, commas, "=", "!", "~", "<", ">" and "\" ;

`time` is a word or quoted, an RFC 3339 time with its zone; `currency` three letters; `number` a decimal number. A value that is one of the
words ``and or not in`` is quoted.
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple, NoReturn

from collector.amounts import amount_text
from collector.errors import Malformed
from correlator.index.amounts import LEAST, MOST, AmountRange, ordered
from correlator.index.condition import And, Condition, Has, HasAmount, HasKey, HasText, HasTime, Not, Or
from correlator.index.times import zoned
from correlator.index.vocabulary import KINDS, STATUSES
from correlator.index.words import TextSearch
from correlator.trail import transaction_trail

__all__ = ["FIELDS", "MAX_CONDITIONS", "MAX_FILTER", "FilterError", "parse_filter"]

MAX_FILTER = 1_000
"""Longest filter, in characters."""

MAX_CONDITIONS = 32
"""Most conditions in a filter, each value of a list counted."""

MAX_DEPTH = 16
"""How deep brackets and ``not`` may stand in each other."""

FIELDS = (
    "trail",
    "transaction",
    "tenant",
    "kind",
    "status",
    "service",
    "event",
    "key.NAME",
    "text",
    "time",
    "amount.CUR",
)
"""What can be asked for."""

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<quoted>"(?:[^"\\]|\\["\\])*")
  | (?P<sign>!=|<=|>=|[=<>~(),])
  | (?P<word>[^\s"(),=!~<>\\]+)
  | (?P<end>$)
    )""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"and", "or", "not", "in"})
_ORDERS = ("<", "<=", ">", ">=")
_NAMES = ("trail", "tenant", "kind", "status", "service", "event")
_VOCABULARY = {"kind": KINDS, "status": STATUSES}
_DIGITS = len(LEAST)


class FilterError(ValueError):
    """It is no filter: the message says what is wrong, `position` where, counted in characters from 1."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"at character {position}: {message}")
        self.position = position


class _Token(NamedTuple):
    kind: str
    text: str
    at: int

    def is_(self, word: str) -> bool:
        """Whether it is this sign, or this word of the grammar, unquoted."""
        return (self.kind == "word" and self.text.lower() == word) or (self.kind == "sign" and self.text == word)


def parse_filter(text: str) -> Condition:
    """Read a filter.

    Raises:
        FilterError: it is none.
    """
    if len(text) > MAX_FILTER:
        raise FilterError(f"a filter has at most {MAX_FILTER} characters", MAX_FILTER + 1)
    for at, letter in enumerate(text):
        if letter == "\0" or "\ud800" <= letter <= "\udfff":
            raise FilterError("a character that no text has", at + 1)
    return _Parser(_tokens(text)).filter()


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while not tokens or tokens[-1].kind != "end":
        found = _TOKEN.match(text, at)
        if found is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            wrong = (
                "a quote that does not end, or a backslash that escapes nothing" if text[at] == '"' else repr(text[at])
            )
            raise FilterError(f"{wrong} cannot stand here", at + 1)
        kind = str(found.lastgroup)
        tokens.append(_Token(kind, found[kind], found.start(kind) + 1))
        at = found.end()
    return tokens


class _Parser:
    """Recursive descent, one method a rule of the grammar."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0
        self._conditions = 0

    def filter(self) -> Condition:
        condition = self._any()
        if self._here.kind != "end":
            self._fail("and, or, or the end")
        return condition

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return Or(tuple(parts)) if len(parts) > 1 else parts[0]

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return And(tuple(parts)) if len(parts) > 1 else parts[0]

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FilterError(f"brackets and not stand at most {MAX_DEPTH} deep", self._here.at)
        try:
            if self._take("not"):
                return Not(self._one())
            if self._take("("):
                condition = self._any()
                self._want(")")
                return condition
            return self._condition()
        finally:
            self._depth -= 1

    def _condition(self) -> Condition:
        token = self._here
        if token.kind != "word" or token.text.lower() in _KEYWORDS:
            self._fail("a condition, not, or (")
        self._next += 1
        field, dot, rest = token.text.partition(".")
        field = field.lower()
        if field == "key" and dot:
            name = rest or (self._value("the key's name") if self._here.kind == "quoted" else "")
            if not name:
                raise FilterError("write the key's name behind the dot, as in key.order_id", token.at)
            return self._equal(lambda values: HasKey(name=name, values=values))
        if field == "amount" and dot:
            if re.fullmatch(r"[A-Za-z]{3}", rest, re.ASCII) is None:
                raise FilterError("write the currency's three letters behind the dot, as in amount.EUR", token.at)
            return self._amount(rest.upper())
        if not dot:
            if field == "transaction":
                return self._equal(
                    lambda values: Has(field="trail", values=tuple(transaction_trail(value) for value in values))
                )
            if field in _NAMES:
                return self._named(field)
            if field == "text":
                return self._text()
            if field == "time":
                return self._time()
        raise FilterError(f"{token.text[:50]!r} is no field: {', '.join(FIELDS)}", token.at)

    # Conditions -------------------------------------------------------------------------------------------------------

    def _equal(self, made: Callable[[tuple[str, ...]], Condition], known: tuple[str, ...] = ()) -> Condition:
        """``= value``, ``!= value``, ``in (…)`` or ``not in (…)``."""
        if self._take("="):
            return made((self._known(known),))
        if self._take("!="):
            return Not(made((self._known(known),)))
        negated = self._take("not")
        if not self._take("in"):
            self._fail("=, !=, in, or not in")
        self._want("(")
        values = [self._known(known)]
        while self._take(","):
            values.append(self._known(known))
        self._want(")")
        condition = made(tuple(dict.fromkeys(values)))
        return Not(condition) if negated else condition

    def _named(self, field: str) -> Condition:
        def made(values: tuple[str, ...]) -> Condition:
            return Has(field=field, values=values)  # type: ignore[arg-type]  # one of `_NAMES`

        return self._equal(made, _VOCABULARY.get(field, ()))

    def _text(self) -> Condition:
        self._want("~")
        at = self._here.at
        try:
            return HasText(text=TextSearch.parse(self._value("words")))
        except ValueError as error:
            if isinstance(error, FilterError):
                raise
            raise FilterError(str(error), at) from error

    def _time(self) -> Condition:
        than = self._order()
        if than is None:
            self._fail("<, <=, > or >=")
        at = self._here.at
        value = self._value("a time")
        try:
            return HasTime(than=than, time=zoned(value))
        except Malformed as error:
            raise FilterError(str(error), at) from error

    def _amount(self, currency: str) -> Condition:
        if (than := self._order()) is not None:
            number = self._number(self._value_token("a number"))
            least, most = {
                ">=": (number, MOST),
                ">": (f"{int(number) + 1:0{_DIGITS}d}", MOST),
                "<=": (LEAST, number),
                "<": (LEAST, f"{int(number) - 1:0{_DIGITS}d}"),
            }[than]
            return HasAmount(range=AmountRange(currency=currency, least=least, most=most))
        negated = False
        if self._take("=") or (negated := self._take("!=")):
            least = most = self._number(self._value_token("a number"))
        else:
            negated = self._take("not")
            if not self._take("in"):
                self._fail("=, !=, <, <=, >, >=, in, or not in")
            token = self._value_token("two numbers, as in 10..20")
            first, dots, second = token.text.partition("..")
            if not dots:
                raise FilterError("write two numbers with two dots between, as in 10..20", token.at)
            least = self._number(token._replace(text=first))
            most = self._number(token._replace(text=second, at=token.at + len(first) + 2))
            if least > most:
                raise FilterError(f"{first} is more than {second}", token.at)
        condition = HasAmount(range=AmountRange(currency=currency, least=least, most=most))
        return Not(condition) if negated else condition

    def _number(self, token: _Token) -> str:
        number = ordered(amount_text(token.text))
        if not number:
            raise FilterError(f"{token.text[:50]!r} is no amount", token.at)
        return number

    # Tokens -----------------------------------------------------------------------------------------------------------

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, word: str) -> bool:
        taken = self._here.is_(word)
        self._next += taken
        return taken

    def _want(self, sign: str) -> None:
        if not self._take(sign):
            self._fail(sign)

    def _order(self) -> Literal[">", ">=", "<", "<="] | None:
        for than in _ORDERS:
            if self._take(than):
                return than  # type: ignore[return-value]  # one of `_ORDERS`
        return None

    def _known(self, known: tuple[str, ...]) -> str:
        at = self._here.at
        value = self._value("a value")
        if known and value not in known:
            raise FilterError(f"{value[:50]!r} is none of {', '.join(known)}", at)
        return value

    def _value(self, what: str) -> str:
        return self._value_token(what).text

    def _value_token(self, what: str) -> _Token:
        """A value, its quotes taken off."""
        token = self._here
        if token.kind == "quoted":
            token = token._replace(text=re.sub(r"\\(.)", r"\1", token.text[1:-1]))
        elif token.kind != "word" or token.text.lower() in _KEYWORDS:
            self._fail(what)
        if not token.text:
            raise FilterError("a value is not empty", token.at)
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise FilterError(f"a filter has at most {MAX_CONDITIONS} values", token.at)
        self._next += 1
        return token

    def _fail(self, wanted: str) -> NoReturn:
        token = self._here
        found = "the end" if token.kind == "end" else token.text[:50]
        raise FilterError(f"{wanted} is wanted, not {found}", token.at)
