"""A story as text: what a person sees, whatever the width, and whatever a log line holds."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from correlator.bundle import BundleHeader, Contents, TrailPart
from correlator.entry import Entry, encode_entry
from correlator.errors import VerificationError
from correlator.note import Signer
from correlator.story import StoryTrails
from deploy.narrate import narrate
from deploy.story import MIN_WIDTH, Link, Proof, Step, Story, columns, lines
from deploy.wording import harmless

TRAIL = "transaction/pay-1003"
TRACE = "trace/" + "ab" * 16
PROOF = Proof(
    state="verified", origin="localhost/tallystick", size=412, key="localhost/tallystick+1a2b3c4d", entries=9, events=6
)
STEPS = (
    Step(
        time="2026-11-22T07:28:58.123456789Z", service="gateway", name="payment.received", actor="ada", trail=TRAIL,
        message="ada pays 12.00 EUR with card 411111******1111", marks=("card_masked",), sequence=0, leaf=4,
    ),
    Step(
        time="2026-11-22T07:28:58.124000000Z", service="gateway", name="POST /payments", duration_ns=512_334_000,
        trail=TRAIL, sequence=1, leaf=5,
    ),
    Step(
        time="2026-11-22T07:28:58.133000000Z", service="risk", name="risk.assessed", message="score 12 of 100: approved",
        outcome="success", trail=TRAIL, sequence=0, leaf=7,
    ),
    Step(
        time="2026-11-22T07:28:58.143000000Z", service="ledger", name="journal.synced", message="journal page written",
        trail=TRACE, sequence=3, leaf=8,
    ),
    Step(
        time="2026-11-22T07:28:58.633000000Z", service="payments", name="payment.failed", error=True, trail=TRAIL,
        message="undoing the reservation: no answer from the card network within 0.5 s", sequence=9, leaf=11,
    ),
    Step(service="ledger", name="funds.released", message="released 12.00 EUR", trail=TRAIL, sequence=4, leaf=12),
)  # fmt: skip
STORY = Story(
    trail=TRAIL,
    status="compensated",
    proof=PROOF,
    steps=STEPS,
    flow="payment",
    reason="funds.released undoes funds.reserved",
    keys=(("order_id", "order-7003"),),
    links=(Link(trail=TRACE, why="event gateway/0 carries both", followed=True), Link(trail="transaction/pay-1")),
)


def text(story: Story, width: int = 100) -> str:
    return "\n".join(lines(story, width=width, colour=False))


def test_the_story_as_it_is_told() -> None:
    assert (
        text(STORY)
        == """\
transaction/pay-1003  COMPENSATED
2026-11-22 07:28:58 UTC, 510 ms · 6 events from 4 services · 2 trails
order_id order-7003

07:28:58.123 · gateway   payment.received  ada pays 12.00 EUR with card 411111******1111 (by ada)
                                           [card_masked]
07:28:58.124 · gateway   POST /payments    512 ms
07:28:58.133 ✓ risk      risk.assessed     score 12 of 100: approved
07:28:58.143 · ledger    journal.synced    journal page written
07:28:58.633 ✗ payments  payment.failed    undoing the reservation: no answer from the card network
                                           within 0.5 s
no time      · ledger    funds.released    released 12.00 EUR

Verdict   flow payment: compensated, funds.released undoes funds.reserved
Includes  trace/abababababababababababababababab (event gateway/0 carries both)
Related   transaction/pay-1
Order     by the time that each service stated; the services' clocks were not compared
Proof     verified: 9 entries and 6 events, in the log localhost/tallystick of 412 leaves, signed by
          localhost/tallystick+1a2b3c4d"""
    )


def test_what_is_missing_and_what_is_false_cannot_be_overlooked() -> None:
    story = msgspec.structs.replace(
        STORY,
        status="incomplete",
        missing=("customer.notified (notifications)",),
        gaps=("stream ledger/00: sequences 4 to 7 are missing",),
        proof=Proof(state="false", problem="leaf 7 is not in the tree"),
    )
    told = text(story)
    assert "transaction/pay-1003  INCOMPLETE" in told
    assert "Missing   customer.notified (notifications)\n" in told
    assert "Gaps      stream ledger/00: sequences 4 to 7 are missing\n" in told
    assert told.endswith("Proof     FALSE: leaf 7 is not in the tree")
    assert "verified" not in told


def test_an_unknown_proof_is_not_told_as_verified() -> None:
    told = text(msgspec.structs.replace(STORY, proof=Proof(state="unknown", problem="the store cannot be read")))
    assert "Proof     could not be told: the store cannot be read" in told
    assert "verified" not in told


def test_colours_change_nothing_but_colours() -> None:
    coloured = "\n".join(lines(STORY, width=100, colour=True))
    assert "\x1b[" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in plain.splitlines()] == text(STORY).splitlines()


def test_of_a_token_the_beginning_is_shown() -> None:
    step = msgspec.structs.replace(STEPS[0], message="card [4111 11** **** 1111~card:mdkpahcchclpahldcmnb]")
    assert "card [4111 11** **** 1111~card:mdkp…] (by ada)" in text(msgspec.structs.replace(STORY, steps=(step,)))


def test_a_long_message_is_cut_and_says_so() -> None:
    step = msgspec.structs.replace(STEPS[0], message="word " * 100)
    told = text(msgspec.structs.replace(STORY, steps=(step,)))
    hidden = re.search(r"… and (\d+) characters more", told)
    assert hidden is not None
    shown = told.count("word")
    # what is shown, what is said to be hidden, and a space a word make the whole
    assert abs(shown * 5 + int(hidden[1]) - len("word " * 100 + "(by ada) [card_masked]")) <= 8


def test_in_a_narrow_column_it_says_how_much_is_hidden() -> None:
    step = msgspec.structs.replace(STEPS[0], service="notifications", name="customer.notified", message="word " * 100)
    told = "\n".join(lines(msgspec.structs.replace(STORY, steps=(step,)), width=60, colour=False))
    assert re.search(r"… \d+ more\n", told), told


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[2J\x1b[31mall is well", "\\x1b[2J\\x1b[31mall is well"),
        ("a\nb\tc\r\nd\re", "a b c d\\re"),
        ("amount \u202e00.1\u202c", "amount \\u202e00.1\\u202c"),
        ("\x9b31m", "\\x9b31m"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("bell\x07 nul\x00", "bell\\x07 nul\\x00"),
        ("Überweisung 日本語 ✓", "Überweisung 日本語 ✓"),
    ],
)
def test_text_from_outside_is_made_harmless(raw: str, shown: str) -> None:
    assert harmless(raw) == shown


anything = st.text(max_size=30) | st.sampled_from(["long " * 60, "x" * 300, "日本語" * 40, "\x1b[2J", "\u202e"])
a_step = st.builds(
    Step,
    time=st.sampled_from(["", "2026-11-22T07:28:58.123456789Z", "1754-08-30T22:43:41.128654848Z"]) | anything,
    service=anything,
    name=anything,
    message=anything,
    actor=anything,
    outcome=st.sampled_from(["", "success", "failure"]),
    error=st.booleans(),
    duration_ns=st.integers(min_value=-1, max_value=2**63),
    sequence=st.integers(min_value=-1, max_value=10),
    marks=st.lists(anything, max_size=3).map(tuple),
)
a_story = st.builds(
    Story,
    trail=anything,
    status=st.sampled_from(["ok", "incomplete", "failed"]) | anything,
    proof=st.builds(Proof, state=st.sampled_from(["verified", "false", "unknown"]), problem=anything, origin=anything),
    steps=st.lists(a_step, max_size=4).map(tuple),
    reason=anything,
    flow=anything,
    missing=st.lists(anything, max_size=3).map(tuple),
    keys=st.lists(st.tuples(anything, anything), max_size=2).map(tuple),
    links=st.lists(st.builds(Link, trail=anything, why=anything, followed=st.booleans()), max_size=2).map(tuple),
    gaps=st.lists(anything, max_size=2).map(tuple),
)


@given(story=a_story, width=st.integers(min_value=0, max_value=200))
def test_no_line_is_too_wide_and_no_character_steers_the_terminal(story: Story, width: int) -> None:
    for line in lines(story, width=width, colour=False):
        assert columns(line) <= max(width, MIN_WIDTH)
        assert all(char.isprintable() for char in line)


@given(story=a_story)
def test_colours_come_from_us_alone(story: Story) -> None:
    for line in lines(story, width=80, colour=True):
        assert "\x1b" not in re.sub(r"\x1b\[[0-9;]+m", "", line)


def batch_entry(stream: str, clock: object) -> bytes:
    header = msgspec.json.encode({"stream": stream, "clock": clock}).decode()
    detail = {"header": header}
    return encode_entry(Entry(v=1, trail=f"stream/{stream}", position=0, kind="batch", recorded="", detail=detail))


@pytest.mark.parametrize("measured", [True, False])
def test_how_far_clocks_were_off_is_told_where_one_was_measured(measured: bool) -> None:
    clocks = [
        ("side/aa", {"offset_ns": 2_000_000, "uncertainty_ns": 1_000_000}),
        ("side/bb", {"offset_ns": -1_500_000_000, "uncertainty_ns": 4_000_000}),  # the worst of a collector's
        ("side/bb", None),
        ("legacy/cc", None),
    ]
    headers = tuple(
        BundleHeader(leaf=at, entry=batch_entry(stream, clock if measured else None), paths=())
        for at, (stream, clock) in enumerate(clocks)
    )
    contents = Contents(
        key=Signer.generate("test.example/story").verifier,
        checkpoint=b"",
        trails=(TrailPart(trail=TRAIL, first=0, lines=()),),
        headers=headers,
        enrolments=(),
        proofs={},
    )
    story = narrate(contents, status="open", proof=PROOF, trails=StoryTrails(main=TRAIL))
    told = ("legacy: not measured", "side: 1,500.0 ms behind, ±4.0 ms, as it measured itself")
    assert story.clocks == (told if measured else ())
    assert ("Clocks    legacy: not measured" in text(story)) == measured


@pytest.mark.parametrize("offset", ["1" + "0" * 400, "-" + "9" * 400, '"far"', "[" * 2_000])
def test_a_clock_that_no_clock_can_be_is_told(offset: str) -> None:
    """Of a bundle that does not hold, which is told all the same where it can be read."""
    header = f'{{"stream":"side/aa","clock":{{"offset_ns":{offset},"uncertainty_ns":0}}}}'
    entry = Entry(v=1, trail="stream/side/aa", position=0, kind="batch", recorded="", detail={"header": header})
    contents = Contents(
        key=Signer.generate("test.example/story").verifier,
        checkpoint=b"",
        trails=(TrailPart(trail=TRAIL, first=0, lines=()),),
        headers=(BundleHeader(leaf=7, entry=encode_entry(entry), paths=()),),
        enrolments=(),
        proofs={},
    )
    with pytest.raises(VerificationError, match="leaf 7: the batch header in it cannot be read"):
        narrate(contents, status="open", proof=PROOF, trails=StoryTrails(main=TRAIL))
