"""Masks in place of what may not be written: the `Protector`.

A card number ``4432-8015-6152-0454`` becomes ``[4432-80**-****-0454~card:bflpmkdnaehiogcjblfp]``: its first six and last four digits
where they stood, with the separators as they were, and its token. Numbers of fewer than 15 digits show fewer leading
digits, so that at least five are hidden. The token ``card:`` + 20 letters is the first 80 bits of HMAC-SHA-256 of the
bare digits: the same number has the same token however it is written, so masked events still join, and without the key
it says nothing. Tokens and the brackets hold no digits, so that nothing beside them turns into a card number, and
protecting protected content changes nothing.

A JSON Web Token (RFC 7519) in a text becomes ``[jwt:…]``, a token of the same kind. The value of a declared field
becomes ``***``.
"""

import hmac
import re
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from collector.errors import TallyError
from collector.protect.cardnumber import MIN_DIGITS, is_card
from collector.protect.classify import Card, find_cards, fold, has_card, may_hold_card, with_digits
from collector.protect.fields import DEFAULT_MASKED_FIELDS, MASK, Action, Fields

__all__ = ["MAX_DEPTH", "MAX_PATH", "ProtectError", "Protector"]

MAX_DEPTH = 128
"""Dicts and lists inside each other, at most."""

MAX_PATH = 1_024
"""Longest path of a map whose fields are protected, in characters: it is looked at anew for each of them."""

_EXEMPT = {
    "trace_id": re.compile(r"[0-9a-fA-F]{32}"),
    **dict.fromkeys(("span_id", "parent_span_id"), re.compile(r"[0-9a-fA-F]{16}")),
}
"""Fields that hold identifiers of W3C trace context, which may look like card numbers; only when they have that shape."""

_TOKEN_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_MIN_KEY_BYTES = 32
_MIN_TEXT = 4  # shorter than any name=value
_MAX_REMEMBERED_PATH = 256
_MAX_REMEMBERED_KEYS = 8_192  # of all dicts together: some megabytes, if they are as long as they may be

_JWT = re.compile(r"(?<![\w-])[\w-]{4,}+\.eyJ[\w-]{4,}+(?:\.[\w-]*+)?", re.ASCII)
_BARE_IN_JSON = (re.compile(r"(\\{0,64}\"|\\{1,64}(?:x|u00)22)\s{0,4}:\s{0,4}\Z"), re.compile(r"\s{0,4}(?:[,}\]]|\Z)"))
_LOOK_BEHIND = 80

# Eight-byte integers and floats of MessagePack (uint 64, int 64, float 64) and CBOR (unsigned), big-endian.
_BINARY_NUMBER = re.compile(rb"([\xcf\xd3\x1b\xcb\xfb])(?=([\x00-\xff]{8}))")
_UTF_16 = re.compile(rb"[\x20-\x7e](?:\x00[\x20-\x7e]){6,}")


_COLONS_OF_A_TIME = 2


def _may_hold_pair(encoded: bytes, times: int) -> bool:
    """Whether a text in this JSON may hold `name=value` or `name: value`: a colon that neither a key nor a time accounts for."""
    if b"=" in encoded or b"\\" in encoded:  # a backslash: JSON inside a text has colons that look like those of keys
        return True
    return encoded.count(b":") != encoded.count(b'":') + _COLONS_OF_A_TIME * times


class ProtectError(TallyError):
    """Content could not be checked, so it may not be written. The message names the place, never the content."""


class Protector:
    """Masks card numbers, JSON Web Tokens and declared fields. Safe to share between threads.

    Args:
        token_key: secret of 32 bytes or more; the same key gives the same tokens. See `keys`.
        masked_fields: patterns (see `fields`) of fields whose value becomes `***`.
        dropped_fields: patterns of fields that are taken out.

    Raises:
        ValueError: the key is too short, or a pattern names no field.
    """

    __slots__ = ("_fields", "_key", "_known", "_remembered")

    def __init__(
        self,
        *,
        token_key: bytes,
        masked_fields: Sequence[str] = DEFAULT_MASKED_FIELDS,
        dropped_fields: Sequence[str] = (),
    ) -> None:
        if len(token_key) < _MIN_KEY_BYTES:
            raise ValueError(f"the token key has {len(token_key)} bytes, fewer than {_MIN_KEY_BYTES}")
        self._key = token_key
        self._fields = Fields(masked=masked_fields, dropped=dropped_fields)
        # path of a dict -> key -> what `_field` decided
        self._known: dict[str, dict[str, tuple[str, str, Action]]] = {}
        self._remembered = 0  # keys in all of them

    def needs_walk(self, encoded: bytes, *, times: int | None = None) -> bool:
        """Whether `protect` might change the value that `encoded` is the JSON of.

        Never false when it would. Cheap when there is nothing: a pass or two over the bytes. `encoded` is UTF-8 in which no
        letter or digit is written as an escape, as our own encoder has it. Bytes that the encoder wrote as base64 are
        opaque here: pass them through `raw` (or `protect`) before encoding.

        With `times` the caller says that none of the keys in it is declared (`declares`) and that so many RFC 3339 times
        in UTC stand in it. What is left are pairs in texts, which take a colon or an equals sign: most events have none.
        """
        folded = fold(encoded)
        if may_hold_card(encoded, folded) and has_card(encoded.decode("utf-8", "replace")):
            return True
        if b"J" in encoded and b".eyJ" in encoded:
            return True
        return (times is None or _may_hold_pair(encoded, times)) and self._fields.may_hold(folded)

    def declares(self, keys: Iterable[Any]) -> bool:
        """Whether a field under one of these keys, wherever it stands, may be declared; true for a key that is no text."""
        try:
            return self._fields.may_hold(fold(",".join(keys).encode("utf-8", "surrogatepass")))
        except TypeError:
            return True

    def protect(self, value: Any, *, path: str = "") -> tuple[Any, tuple[str, ...]]:
        """`value` (dict, list, str, int, float, bool, None, bytes; nested) masked, and the marks that say what was done.

        A part without anything to mask is returned as it is, the same object; nothing is changed in place. A number that is
        a card number becomes its masked text. `path` is where `value` stands in the event: keys joined by full stops,
        empty for the event itself. Marks are `kind:path` (kinds: card, jwt, field, dropped), sorted, each once, list
        indexes left out of the path.

        Raises:
            ProtectError: a value of another type, a key that is no text, more than `MAX_DEPTH` levels, or fields under a
                path longer than `MAX_PATH`.
        """
        marks: set[str] = set()
        try:
            protected = self._walk(value, path, "", MAX_DEPTH, marks)
        except ProtectError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever goes wrong here, the content must not be written
            raise ProtectError(f"{type(error).__name__} while protecting {path or 'the event'}") from None
        return protected, tuple(sorted(marks))

    def text(self, text: str) -> str:
        """`text` with its card numbers, JSON Web Tokens and declared `name=value` pairs masked. Raises ProtectError."""
        try:
            return self._text(text, "", set())
        except Exception as error:  # noqa: BLE001 - as in protect
            raise ProtectError(f"{type(error).__name__} while protecting a text") from None

    def raw(self, data: bytes) -> bytes:
        """Bytes of any kind, as dead letters hold them, masked like `text`; what is not masked keeps its bytes.

        Reads ASCII, UTF-8 and UTF-16 text, and the eight-byte numbers of MessagePack and CBOR, wherever in `data` they
        stand. What is compressed or encrypted cannot be read: decompress it first, or keep its hash instead. Raises
        ProtectError.
        """
        try:
            if not data.isascii():
                data = self._binary_numbers(data)
            if b"\x00" in data:
                data = _UTF_16.sub(self._utf_16, data)
            return self._text(data.decode("utf-8", "surrogateescape"), "", set()).encode("utf-8", "surrogateescape")
        except Exception as error:  # noqa: BLE001 - as in protect
            raise ProtectError(f"{type(error).__name__} while protecting bytes") from None

    def token(self, value: str) -> str:
        """A business key as it may be written: a card number becomes its token, any other key what `text` makes of it.

        The token is the one beside the masked number in texts. Raises ProtectError.
        """
        cards = find_cards(value)
        if len(cards) == 1 and len(cards[0].numbers) == 1:
            around = value[: cards[0].start] + value[cards[0].end :]
            if not around.strip():
                return self._token("card", cards[0].numbers[0])
        return self.text(value)

    def _token(self, kind: str, secret: str) -> str:
        digest = hmac.digest(self._key, f"tallystick/{kind}/v1\n{secret}".encode(), "sha256")
        return f"{kind}:{digest[:10].hex().translate(_TOKEN_LETTERS)}"

    def _walk(self, value: Any, path: str, key: str, levels: int, marks: set[str]) -> Any:
        """`value`, which stands under `key`, with `levels` of nesting left."""
        kind = type(value)
        if kind is str:
            exempt = _EXEMPT.get(key)
            return value if exempt and exempt.fullmatch(value) else self._text(value, path, marks)
        if kind is dict or kind is list:
            if not levels:
                raise ProtectError(f"more than {MAX_DEPTH} levels deep")
            if kind is dict:
                return self._dict(value, path, levels - 1, marks)
            items = [self._walk(item, path, key, levels - 1, marks) for item in value]
            return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        if kind is int or kind is float:
            return self._number(value, path, marks)
        if value is None or kind is bool:
            return value
        if kind is bytes:
            masked = self.raw(value)
            if masked != value:
                marks.add(f"card:{path}")
                return masked
            return value
        raise ProtectError(f"{path or 'the event'} is of type {kind.__name__}, which is no JSON")

    def _dict(self, fields: dict[Any, Any], path: str, levels: int, marks: set[str]) -> dict[str, Any]:
        if len(path) > MAX_PATH:
            raise ProtectError(f"fields under a path of {len(path)} characters; at most {MAX_PATH}")
        known = self._known.get(path) or {}
        changed = False
        masked: dict[str, Any] = {}
        for key, value in fields.items():
            name, where, action = known.get(key) or self._field(key, path, fields, masked, marks)
            if action is Action.KEEP:
                if type(value) is str and name not in _EXEMPT:  # the common case, without a call
                    new = self._text(value, where, marks) if len(value) >= _MIN_TEXT else value
                else:
                    new = self._walk(value, where, name, levels, marks)
            elif action is Action.DROP:
                marks.add(f"dropped:{where}")
                changed = True
                continue
            elif value is None or value == MASK:
                new = value
            else:
                marks.add(f"field:{where}")
                new = MASK
            masked[name] = new
            changed = changed or new is not value or (name is not key and name != key)
        return masked if changed else fields

    def _field(
        self, key: Any, path: str, fields: dict[Any, Any], masked: dict[str, Any], marks: set[str]
    ) -> tuple[str, str, Action]:
        """The key as it may be written, its path, and what happens to its value; remembered when it is harmless."""
        if type(key) is not str:
            raise ProtectError(f"a key in {path or 'the event'} is of type {type(key).__name__}, not text")
        name = key
        if len(key) >= MIN_DIGITS:
            name = self._key_name(key, path, marks)
            # Two keys can become one only if their tokens collide; then too nothing is lost.
            while name is not key and (name in masked or name in fields):
                name += "~"
        where = f"{path}.{name}" if path else name
        decided = (name, where, self._fields.action(where))
        # Keys come from outside: what is remembered is bounded, and holds no key that may itself be personal.
        harmless = name == key and b"00000000" not in fold(where.encode("utf-8", "surrogatepass"))
        if harmless and len(where) <= _MAX_REMEMBERED_PATH:
            self._remember(path, key, decided)
        return decided

    def _remember(self, path: str, key: str, decided: tuple[str, str, Action]) -> None:
        """Remember what was decided; when it is full, the memory starts anew, as `Memo` does."""
        if self._remembered >= _MAX_REMEMBERED_KEYS:
            self._known.clear()
            self._remembered = 0
        self._known.setdefault(path, {})[key] = decided
        self._remembered += 1

    def _key_name(self, key: str, path: str, marks: set[str]) -> str:
        name = _JWT.sub(self._masked_jwt, self._mask_cards(key, path, marks))
        return key if name == key else name

    def _number(self, number: Any, path: str, marks: set[str]) -> Any:
        # Below 0 it is no card number; floats from 1e16 on no longer know all digits that a card number would have.
        if not 1e11 <= number < 1e19:
            return number
        if isinstance(number, float) and (number >= 1e16 or not number.is_integer()):
            return number
        digits = str(int(number))
        if not is_card(digits):
            return number
        marks.add(f"card:{path}")
        return self._masked(digits, Card(digits_at=tuple(range(len(digits))), numbers=(digits,)))

    def _text(self, text: str, path: str, marks: set[str]) -> str:
        masked = text
        folded = b""
        if len(text) >= MIN_DIGITS:
            encoded = text.encode("utf-8", "surrogatepass")
            folded = fold(encoded)
            if may_hold_card(encoded, folded):
                masked = self._mask_cards(text, path, marks)
            if ".eyJ" in text:
                masked, count = _JWT.subn(self._masked_jwt, masked)
                if count:
                    marks.add(f"jwt:{path}")
        if ":" in text or "=" in text:
            folded = folded or fold(text.encode("utf-8", "surrogatepass"))
            if self._fields.may_hold(folded):
                before, masked = masked, self._fields.mask_pairs(masked)
                if masked != before:
                    marks.add(f"field:{path}")
        return masked

    def _mask_cards(self, text: str, path: str, marks: set[str]) -> str:
        text = with_digits(text)
        parts: list[str] = []
        done = 0
        for card in find_cards(text):
            parts += (text[done : card.start], self._masked(text, card))
            done = card.end
        if not parts:
            return text
        marks.add(f"card:{path}")
        return "".join(parts) + text[done:]

    def _masked(self, text: str, card: Card) -> str:
        start = card.start
        shown = list(text[start : card.end])
        digits = len(card.digits_at)
        leading = min(6, digits - 9) if len(card.numbers) == 1 else 0
        trailing = 4 if len(card.numbers) == 1 else 0
        for at in card.digits_at[leading : digits - trailing]:
            shown[at - start] = "*"
        tokens = ",".join(self._token("card", number) for number in card.numbers)
        masked = f"[{''.join(shown)}~{tokens}]"
        before, after = _BARE_IN_JSON
        quote = before.search(text[max(0, start - _LOOK_BEHIND) : start])
        if quote and after.match(text, card.end):
            # A bare number in JSON inside a string: quoted as the key before it is, that JSON stays JSON.
            return f"{quote[1]}{masked}{quote[1]}"
        return masked

    def _masked_jwt(self, match: re.Match[str]) -> str:
        word = match.group()
        at = word.find("eyJ")  # the header starts so, or the payload, when the header is not the usual JSON
        return f"{word[:at]}[{self._token('jwt', word[at:])}]"

    def _utf_16(self, match: re.Match[bytes]) -> bytes:
        narrow = match.group()[::2].decode("ascii")
        masked = self._text(narrow, "", set())
        return match.group() if masked == narrow else b"\x00".join(bytes([byte]) for byte in masked.encode("ascii"))

    def _binary_numbers(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        done = 0
        for found in _BINARY_NUMBER.finditer(data):
            number = struct.unpack(">d" if found[1] in b"\xcb\xfb" else ">Q", found[2])[0]
            masked = self._number(number, "", set())
            if found.start() >= done and masked is not number:
                parts += (data[done : found.start()], masked.encode("ascii"))
                done = found.start() + 9
        return b"".join(parts) + data[done:]
