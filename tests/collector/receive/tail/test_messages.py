"""Parts joined to messages by stream; and read again from any checkpoint, the same messages at the same places."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collector.receive.tail.messages import Assembler, Cut, Message, Part, Position
from collector.receive.tail.settings import MultilineSettings

SINGLE = MultilineSettings()
INDENTED = MultilineSettings(indented=True, max_bytes=1_024)


def parts(*given: tuple[str, str, bool] | tuple[str, str]) -> list[Part]:
    """Parts of (stream, text, whole), ten bytes each."""
    return [
        Part(start=10 * at, end=10 * at + 10, stream=one[0], text=one[1], whole=one[2] if len(one) == 3 else True)
        for at, one in enumerate(given)
    ]


def texts(rules: MultilineSettings, given: list[Part]) -> list[tuple[str, str, tuple[str, ...]]]:
    assembler = Assembler(rules, Position())
    found = [message for part in given for message in assembler.add(part, 0.0)]
    found += [message for stream in assembler.waiting for message in assembler.close(stream)]
    return [(message.stream, message.text, message.marks) for message in found]


def test_pieces_are_joined_by_stream() -> None:
    given = parts(("stdout", "a", False), ("stderr", "x", False), ("stdout", "b"), ("stderr", "y"), ("stdout", "c"))
    assert texts(SINGLE, given) == [("stdout", "ab", ()), ("stderr", "xy", ()), ("stdout", "c", ())]


def test_a_line_whose_end_does_not_come_says_so() -> None:
    assert texts(SINGLE, parts(("stdout", "a", False))) == [("stdout", "a", ("continued",))]


def test_a_pattern_begins_an_event_and_blanks_continue_one() -> None:
    rules = MultilineSettings(start=r"\d{4}-")
    assert texts(rules, parts(("", "2026-1"), ("", "more"), ("", "2026-2"))) == [
        ("", "2026-1\nmore", ()),
        ("", "2026-2", ()),
    ]
    assert texts(INDENTED, parts(("", "a"), ("", "\tb"), ("", "c"))) == [("", "a\n\tb", ()), ("", "c", ())]


def test_pieces_of_a_line_decide_together_whether_it_continues() -> None:
    given = parts(("", "a"), ("", " ", False), ("", "b"), ("", "c", False), ("", "d"))
    assert texts(INDENTED, given) == [("", "a\n b", ()), ("", "cd", ())]


def test_what_grows_too_long_is_cut_and_nothing_of_it_lost() -> None:
    given = parts(("", "a" * 600), ("", " " + "b" * 600), ("", " c"), ("", "d"))
    assert texts(INDENTED, given) == [
        ("", "a" * 600, ("continued",)),
        ("", " " + "b" * 600 + "\n c", ()),
        ("", "d", ()),
    ]
    pieces = parts(("", "a" * 600, False), ("", "b" * 600, False), ("", "c"))
    assert texts(INDENTED, pieces) == [("", "a" * 600, ("continued",)), ("", "b" * 600 + "c", ())]


def test_the_position_waits_for_open_messages_and_knows_who_is_ahead() -> None:
    assembler = Assembler(SINGLE, Position())
    for part in parts(("stdout", "a", False), ("stderr", "x")):
        assembler.add(part, 0.0)
    assert assembler.position(20) == Position(offset=0, ahead={"stderr": 20})
    assembler.close("stdout")
    assert assembler.position(20) == Position(offset=20)


lines = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from(["a", " b", "c" * 400]), st.booleans()),
    max_size=25,
)
lives = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 30), st.sampled_from(["reading", "closing", "after"])), max_size=6
)


@given(lines=lines, lives=lives, rules=st.sampled_from([SINGLE, INDENTED]))
def test_read_again_after_any_crash_it_gives_the_same_messages(
    lines: list[tuple[str, str, bool]], lives: list[tuple[int, int, str]], rules: MultilineSettings
) -> None:
    """The file grows; each life reads on from the position and dies: while reading, behind an end that time has set, or after its position moved.

    Time sets an end only when all that there is was read, and the cut is durable before the message is handed on.
    """
    file = parts(*lines)
    handed: dict[str, Message] = {}
    position, cuts, available = Position(), list[Cut](), 0

    def hand(messages: list[Message]) -> None:
        for message in messages:
            known = handed.setdefault(f"{message.stream}{message.start}", message)
            assert known == message  # the same place, hence the same name: it must be the same message

    for grows, reads, dies in [*lives, (len(file), len(file), "after")]:
        available = min(len(file), available + grows)
        assembler = Assembler(rules, Position(offset=position.offset, ahead=position.ahead, cuts=tuple(cuts)))
        there = [part for part in file[:available] if part.start >= position.offset]
        for part in there[:reads] if dies == "reading" else there:
            hand(assembler.add(part, 0.0))
            position = assembler.position(part.end)
        if dies == "reading":
            continue
        for stream in assembler.waiting:
            cuts.append(Cut(stream, 10 * available))
            hand(assembler.close(stream))
        if dies == "after":
            position = assembler.position(10 * available)
            cuts = [cut for cut in cuts if position.needs(cut)]
    for stream in ("stdout", "stderr"):
        told = sorted((message for message in handed.values() if message.stream == stream), key=lambda one: one.start)
        text = "".join(message.text.replace("\n", "") for message in told)
        assert text == "".join(part.text for part in file if part.stream == stream)
