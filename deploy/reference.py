"""The configuration's reference, made from the settings themselves: as TOML with every default, and as Markdown.

Each settings struct documents its fields under ``Attributes:`` in its docstring; a field without a line there is a defect
that `tests/deploy/test_reference.py` finds.
"""

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import msgspec

from deploy.config import Config

__all__ = ["Key", "Table", "dump", "markdown", "tables", "toml", "toml_value"]

_WIDTH = 110
_KIND_TEXT = "which kind it is."


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key: its name, the type in words, the default (`msgspec.NODEFAULT`: it must be given), and what it means."""

    name: str
    kind: str
    default: Any
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table: its header as TOML writes it (`[collector.forward]`; empty for the top), what it is, and its keys.

    `repeated`: it is not there by default, and may be there several times.
    """

    header: str
    repeated: bool
    text: str
    keys: tuple[Key, ...]

    @property
    def of_kind(self) -> str:
        """Which of several kinds of table under one header it is, for a heading; empty where there is one kind."""
        kinds = [key for key in self.keys if key.text == _KIND_TEXT]
        return f", {kinds[0].kind}" if kinds else ""


def tables(struct: type[msgspec.Struct] = Config) -> Iterator[Table]:
    """Every table of the configuration, outer ones first."""
    return _tables(struct, "", "")


def _tables(struct: type[msgspec.Struct], header: str, text: str) -> Iterator[Table]:
    if "Attributes:" not in (struct.__doc__ or ""):
        # a small table whose keys its own docstring explains in one go
        text = " ".join((inspect.getdoc(struct) or text).replace("``", "`").split())
    words = attribute_texts(struct)
    keys, below = _tag(struct), []
    for field in msgspec.structs.fields(struct):
        nested = _tables_of(field.type)
        name = f"{header}.{field.encode_name}".lstrip(".")
        if not nested:
            default = field.default if field.default is not msgspec.NODEFAULT else msgspec.NODEFAULT
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            keys.append(
                Key(
                    name=field.encode_name,
                    kind=_in_words(field.type),
                    default=default,
                    text=words.get(field.name, ""),
                )
            )
        else:
            below += [(one, shape.format(name), words.get(field.name, ""), name) for one, shape in nested]
    yield Table(header=_bracket(header), repeated="[]" in header or "NAME" in header, text=text, keys=tuple(keys))
    for inner, shown, about, name in below:
        if shown == "sidecars.NAME":
            yield Table(header="[sidecars.NAME]", repeated=True, text=about, keys=())
        else:
            yield from _tables(inner, shown, _summary(inner) if _tag(inner) else about or name)


def _bracket(header: str) -> str:
    if header.endswith("[]"):
        return f"[[{header.removesuffix('[]').replace('[]', '')}]]"
    return f"[{header.replace('[]', '')}]" if header else ""


def attribute_texts(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The lines under ``Attributes:`` of a struct's docstring and its bases', each by the name of its field, joined to one line."""
    found: dict[str, str] = {}
    for one in reversed(struct.__mro__):
        found |= _attribute_texts(inspect.cleandoc(one.__dict__.get("__doc__") or ""))
    return found


def _attribute_texts(doc: str) -> dict[str, str]:
    _, _, section = doc.partition("Attributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        head = re.match(r" {4}(\w+(?:, \w+)*): (.+)", line)
        if head:
            names = head[1].split(", ")
            found |= dict.fromkeys(names, head[2].strip())
        elif line.strip():
            for name in names:
                found[name] += f" {line.strip()}"
    return {name: text.replace("``", "`") for name, text in found.items()}


def _tag(struct: type[msgspec.Struct]) -> list[Key]:
    """The key that tells a table of one kind from those of the other kinds, where there are several."""
    config = struct.__struct_config__
    if config.tag_field is None or config.tag is None:
        return []
    told = f"`{toml_value(config.tag)}`"
    return [Key(name=config.tag_field, kind=told, default=msgspec.NODEFAULT, text=_KIND_TEXT)]


def _summary(struct: type[msgspec.Struct]) -> str:
    """The first sentence of a docstring, without its end."""
    return " ".join((inspect.getdoc(struct) or "").partition("\n\n")[0].split()).rstrip(".")


def _tables_of(kind: Any) -> list[tuple[type[msgspec.Struct], str]]:
    """The structs that a field's value is a table of, and how their header is shown; none for a plain value."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [(kind, "{}")]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _tables_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return [found for option in arguments for found in _tables_of(option)]
    if origin is dict:
        return [(inner, shape.replace("{}", "{}.NAME")) for inner, shape in _tables_of(arguments[1])]
    if origin in (list, tuple) and arguments:
        return [(inner, shape.replace("{}", "{}[]")) for inner, shape in _tables_of(arguments[0])]
    return []


_WORDS = {
    str: "text",
    int: "integer",
    float: "number",
    Decimal: "decimal number as text",
    bool: "true or false",
    Any: "any value",
}


def _in_words(kind: Any) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return f"{_in_words(arguments[0])}{_bounds(kind.__metadata__)}"
    if origin is Literal:
        return " or ".join(f"`{toml_value(value)}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(option) for option in arguments if option is not type(None))
    if origin in (list, tuple, set, frozenset):
        return f"list of {_in_words(arguments[0])}" if arguments else "list"
    if origin is dict:
        return f"table of {_in_words(arguments[1])}"
    return getattr(kind, "__name__", str(kind))


def _bounds(metadata: tuple[Any, ...]) -> str:
    """The range that `msgspec.Meta` allows, in words: `, 1 to 65_536`, `, at least 1`; empty when it bounds no number."""
    for meta in metadata:
        if isinstance(meta, msgspec.Meta):
            if meta.ge is not None and meta.le is not None:
                return f", {_number(meta.ge)} to {_number(meta.le)}"
            if meta.ge is not None:
                return f", at least {_number(meta.ge)}"
            if meta.gt is not None:
                return f", more than {_number(meta.gt)}"
            if meta.le is not None:
                return f", at most {_number(meta.le)}"
    return ""


def _number(bound: float) -> str:
    """A bound, the same for 1 and 1.0: typing keeps one of two equal annotations, whichever was imported first."""
    return toml_value(int(bound) if bound == int(bound) else bound)


def toml_value(value: Any) -> str:
    """`value` as TOML writes it on one line; None, which TOML has not, as an empty text."""
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # a JSON string is a TOML basic string, but for DEL
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007F")
    if isinstance(value, int | float):
        return f"{value:_}" if isinstance(value, int) else repr(value)
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{toml_key(str(key))} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, msgspec.Struct):
        return toml_value(msgspec.to_builtins(value))
    return toml_value(str(value))


def toml_key(key: str) -> str:
    """A key as TOML writes it: bare where that is allowed, else quoted."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def toml() -> str:
    """A tally.toml that says nothing: every key with its default and meaning, commented out."""
    lines = ["# tally.toml: every key may be left out; what is commented out here is the default."]
    for table in tables():
        lines += ["", *_comment(table.text)]
        if table.header:
            lines.append(f"#{table.header}" if table.repeated else table.header)
        for key in table.keys:
            lines += ["", *_comment(f"{key.text} ({key.kind.replace('`', '')})")]
            value = "…" if key.default is msgspec.NODEFAULT or key.default is None else toml_value(key.default)
            lines.append(f"#{key.name} = {value}")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def dump(value: Mapping[str, Any], header: str = "") -> str:
    """A TOML text of plain values (`msgspec.to_builtins` of a configuration); what is unset is left out."""
    plain = [(key, item) for key, item in value.items() if not isinstance(item, dict) and item is not None]
    nested = [(key, item) for key, item in value.items() if isinstance(item, dict)]
    parts = [f"[{header}]\n"] if header and (plain or not nested) else []
    parts += [f"{toml_key(key)} = {toml_value(item)}\n" for key, item in plain]
    for key, item in nested:
        below = dump(item, f"{header}.{toml_key(key)}".lstrip("."))
        parts.append(f"\n{below}" if parts or header else below)
    return "".join(parts)


def _comment(text: str) -> list[str]:
    lines, line = [], "#"
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line] if text else []


def markdown() -> str:
    """The reference page, docs/configuration.md."""
    parts = [_HEAD]
    for table in tables():
        if table.header:
            parts.append(f"\n## {table.header.strip('[]')}{table.of_kind}\n")
            parts.append(f"`{table.header}`: {table.text}\n" if table.text else f"`{table.header}`\n")
        if table.keys:
            parts.append("| key | default | type | meaning |\n|---|---|---|---|")
        for key in table.keys:
            default = (
                "must be given" if key.default is msgspec.NODEFAULT
                else "unset" if key.default is None
                else f"`{toml_value(key.default)}`"
            )  # fmt: skip
            cells = (f"`{key.name}`", default, key.kind, key.text)
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(parts) + "\n"


_HEAD = """\
# Configuration

<!-- Made by `tally config --markdown`; a test compares. -->

Everything is set in one file, `tally.toml`. Every key may be left out. A key that nothing knows is refused, with its path
and the key that it resembles. Sizes and times carry their unit in the name.

The file is the one that `--config` names, else the environment variable `TALLY_CONFIG`, else `tally.toml` in the working
directory, else the defaults. `tally config` prints what is in force, `tally config --default` a file with every key.

Tables written `[[…]]` may come several times; `NAME` stands for a name of your choice.
"""
