"""Bundles are true or false: everything that is honest verifies, and whatever is changed is found and named."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_api.evidence import Evidence
from audit_api.export import bundle as bundle_export
from audit_api.export.bundle import BundleExport, TooLarge, export_bundle
from collector.errors import NotFound
from collector.event import Access, Event, Facts
from collector.store.sqlite import SqliteStore
from correlator import page as page_module
from correlator.archive import pack
from correlator.bundle import BundleLine, Contents, TrailPart, encode_members
from correlator.checkpoint import Checkpoint
from correlator.entry import decode_entry, encode_entry
from correlator.errors import VerificationError
from correlator.index.memory import MemoryIndex
from correlator.merkle import leaf_hash
from correlator.note import Signer
from correlator.page import has_true_page, with_page
from correlator.proof import ConsistencyProof
from correlator.stitch import Placement, Stitcher
from correlator.unbundle import parse_members, unpack_bundle
from correlator.verify import Report, verify_bundle, verify_proof
from tests.support.ledgers import SIGNER, SmallLedger, payment, small_story

KEY = SIGNER.verifier
PAYMENT = "transaction/PAY-1"
TRACE = f"trace/{2:032x}"
STREAM = "stream/ledger/00000000000000bb"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> SmallLedger:
    made = SmallLedger(store=SqliteStore(tmp_path_factory.mktemp("store") / "store.sqlite"), index=MemoryIndex())
    small_story(made)
    made.ship(
        "api/00000000000000cc",
        [
            Event(
                time="2026-01-01T00:00:09.000000000Z",
                access=Access(principal="ann", action="trail.read", trail=PAYMENT),
            )
        ],
        role="recorder",
    )
    made.publish()
    return made


@pytest.fixture(scope="module")
def evidence(ledger: SmallLedger) -> Evidence:
    return Evidence(index=ledger.index, reader=ledger.reader, store=ledger.store)


@pytest.fixture(scope="module")
def members(evidence: Evidence) -> dict[str, bytes]:
    return unpack_bundle(export_bundle(evidence, key=KEY, trails=[PAYMENT, TRACE]))


@pytest.fixture(scope="module")
def contents(members: dict[str, bytes]) -> Contents:
    return parse_members(members)


def refused(members: Mapping[str, bytes] | bytes, match: str | None = None) -> str:
    """Verification says no; gives what it said."""
    with pytest.raises(VerificationError, match=match) as found:
        verify_bundle(members, KEY)
    return str(found.value)


# ------------------------------------------------------------------------------------------------------------- it holds


def test_an_honest_bundle_is_true(members: dict[str, bytes], ledger: SmallLedger) -> None:
    report = verify_bundle(members, KEY)
    assert report.trusted
    assert report.exit_code == 0
    assert [(part.trail, part.first, part.entries) for part in report.trails] == [(PAYMENT, 0, 5), (TRACE, 0, 2)]
    assert (report.events, report.withheld, report.headers, report.page) == (3, 0, 2, True)
    assert {(key.stream, key.role) for key in report.streams} == {
        ("gateway/00000000000000aa", "collector"),
        ("ledger/00000000000000bb", "collector"),
    }
    assert report.checkpoint == Checkpoint(origin=KEY.name, size=ledger.log.size, root=ledger.log.root)
    assert report.recorded[0] < report.recorded[1]
    head = ledger.reader.entry(report.trails[0].head_leaf)
    assert report.trails[0].head_hash == leaf_hash(head).hex()
    assert decode_entry(head).trail == PAYMENT


def test_without_a_key_it_could_not_tell(members: dict[str, bytes]) -> None:
    report = verify_bundle(members, None)
    assert not report.trusted
    assert report.exit_code == 2
    assert report.key.fingerprint == KEY.fingerprint


def test_another_key_of_the_same_name_is_refused(members: dict[str, bytes]) -> None:
    with pytest.raises(VerificationError, match="is of the key"):
        verify_bundle(members, Signer.generate(KEY.name).verifier)


def test_a_bundle_signed_by_somebody_else_is_refused(contents: Contents) -> None:
    other = Signer.generate(KEY.name).verifier
    refused(encode_members(replace(contents, key=other, page=None)), "is of the key")
    with pytest.raises(VerificationError, match="not signed by"):
        verify_bundle(encode_members(replace(contents, key=other, page=None)), None)


@pytest.mark.parametrize("trail", [PAYMENT, TRACE, STREAM, "key/order_id/O-1", "access/ann", "ledger/enrolments"])
@pytest.mark.parametrize("page", [True, False])
def test_every_kind_of_trail_goes_into_a_bundle(evidence: Evidence, trail: str, page: bool) -> None:
    bundle = export_bundle(evidence, key=KEY, trails=[trail], page=page)
    report = verify_bundle(bundle, KEY)
    assert [part.trail for part in report.trails] == [trail]
    assert report.page is page


def test_the_same_trail_at_the_same_checkpoint_is_the_same_file(evidence: Evidence) -> None:
    assert export_bundle(evidence, key=KEY, trails=[PAYMENT, TRACE]) == export_bundle(
        evidence, key=KEY, trails=[PAYMENT, TRACE, TRACE, PAYMENT]
    )


def test_events_may_be_withheld(evidence: Evidence) -> None:
    report = verify_bundle(export_bundle(evidence, key=KEY, trails=[PAYMENT], events=False), KEY)
    assert (report.events, report.withheld) == (0, 2)


def test_a_later_part_of_a_trail_verifies_and_says_so(contents: Contents) -> None:
    part = TrailPart(trail=PAYMENT, first=1, lines=contents.trails[0].lines[1:4])  # two links, and the ledger's event
    headers, enrolments = contents.headers[1:], contents.enrolments[1:]
    kept = {one.leaf for one in (*part.lines, *enrolments)} | {one.leaf for one in headers}
    proofs = {leaf: path for leaf, path in contents.proofs.items() if leaf in kept}
    cut = replace(contents, trails=(part,), headers=headers, enrolments=enrolments, proofs=proofs, page=None)
    report = verify_bundle(encode_members(cut), KEY)
    assert [(one.first, one.entries) for one in report.trails] == [(1, 3)]
    assert report.trusted
    assert (report.exit_code, report.doubts) == (
        2,
        (f"the beginning of {PAYMENT} is not in it: it begins at position 1",),
    )


def test_what_the_store_has_lost_is_not_exported(ledger: SmallLedger, tmp_path: Path) -> None:
    empty = Evidence(index=ledger.index, reader=ledger.reader, store=SqliteStore(tmp_path / "store.sqlite"))
    with pytest.raises(NotFound, match="not in the store"):
        export_bundle(empty, key=KEY, trails=[PAYMENT])


def test_an_export_has_a_limit_and_knows_it_beforehand(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLarge, match="at most 6 entries"):
        BundleExport(evidence, key=KEY, trails=[PAYMENT, TRACE], max_entries=6)
    export = BundleExport(evidence, key=KEY, trails=[PAYMENT, TRACE], max_entries=7)
    assert export.entries == 7
    monkeypatch.setattr(bundle_export, "MAX_EXPORT_BYTES", 3_000)
    with pytest.raises(TooLarge, match="3000 bytes"):
        export.step()
    with pytest.raises(NotFound, match="PAY-9"):
        BundleExport(evidence, key=KEY, trails=["transaction/PAY-9"])


def test_one_entry_as_a_file(ledger: SmallLedger) -> None:
    leaf = ledger.index.leaves(PAYMENT)[0]
    data = ledger.reader.proof(leaf, extra=ledger.reader.entry(leaf)).encode()
    report = verify_proof(data, KEY)
    assert (report.leaf, report.entry.trail) == (leaf, PAYMENT)
    assert verify_proof(data, KEY, entry=ledger.reader.entry(leaf)) == report
    with pytest.raises(VerificationError, match="does not lead to the root"):
        verify_proof(data, KEY, entry=ledger.reader.entry(leaf + 1))
    with pytest.raises(VerificationError, match="no entry"):
        verify_proof(ledger.reader.proof(leaf).encode(), KEY)


# --------------------------------------------------------------------------------------------------- remembered trees


def test_a_remembered_checkpoint_is_compared_with_an_entrys(ledger: SmallLedger) -> None:
    leaf, size = ledger.index.leaves(PAYMENT)[0], ledger.log.size
    data = ledger.reader.proof(leaf, extra=ledger.reader.entry(leaf)).encode()
    earlier = Checkpoint(origin=KEY.name, size=size - 5, root=ledger.reader.root(size - 5))
    assert verify_proof(data, KEY).doubts == ()
    report = verify_proof(data, KEY, remembered=earlier)
    assert (report.consistency, len(report.doubts)) == ("not shown", 1)
    path = ledger.reader.consistency(size - 5, size)
    report = verify_proof(data, KEY, remembered=earlier, consistency=ConsistencyProof(hashes=tuple(path)))
    assert (report.consistency, report.doubts) == ("continues", ())
    with pytest.raises(VerificationError, match="against the remembered one"):
        verify_proof(
            data, KEY, remembered=replace(earlier, root=bytes(32)), consistency=ConsistencyProof(hashes=tuple(path))
        )
    for stated in ({"first": size - 4}, {"second": size + 1}):
        of_others = ConsistencyProof(hashes=tuple(path), **stated)
        assert verify_proof(data, KEY, remembered=earlier, consistency=of_others).consistency == "not shown"
    with pytest.raises(VerificationError, match="forked"):
        verify_proof(data, KEY, remembered=Checkpoint(origin=KEY.name, size=size, root=bytes(32)))


def test_a_remembered_checkpoint_is_compared(members: dict[str, bytes], ledger: SmallLedger) -> None:
    def relation(size: int, root: bytes | None = None, *, proof: bool = True) -> tuple[str, int]:
        end = ledger.log.size
        remembered = Checkpoint(origin=KEY.name, size=size, root=root or ledger.reader.root(size))
        path = ConsistencyProof(hashes=tuple(ledger.reader.consistency(size, end))) if proof else None
        report = verify_bundle(members, KEY, remembered=remembered, consistency=path)
        return report.consistency, report.exit_code

    size = ledger.log.size
    assert verify_bundle(members, KEY).consistency == "not asked"
    assert relation(size) == ("same", 0)
    assert relation(size - 5) == ("continues", 0)
    assert relation(size - 5, proof=False) == ("not shown", 2)
    with pytest.raises(VerificationError, match="forked"):
        relation(size, bytes(32))
    with pytest.raises(VerificationError, match="against the remembered one"):
        relation(size - 5, bytes(32))
    other = Checkpoint(origin="another.example", size=size, root=ledger.log.root)
    with pytest.raises(VerificationError, match=r"another\.example"):
        verify_bundle(members, KEY, remembered=other)


def test_a_bundle_older_than_what_is_remembered(evidence: Evidence, ledger: SmallLedger) -> None:
    old = export_bundle(evidence, key=KEY, trails=[PAYMENT])
    size = ledger.log.size
    ledger.ship("gateway/00000000000000aa", [payment(7, 0, "gateway", "payment.requested")])
    ledger.publish()
    now = Checkpoint(origin=KEY.name, size=ledger.log.size, root=ledger.log.root)
    path = ledger.reader.consistency(size, now.size)
    assert (
        verify_bundle(old, KEY, remembered=now, consistency=ConsistencyProof(hashes=tuple(path))).consistency
        == "precedes"
    )


# ------------------------------------------------------------------------------------------------------ tampered lines

LINES = ("trail.ndjson", "headers.ndjson", "enrolments.ndjson", "proofs.ndjson")


def each_change(data: bytes) -> dict[str, bytes]:
    """Whole lines taken away, doubled, swapped, and the file cut short."""
    lines = data.splitlines(keepends=True)
    changes = {"cut": data[:-1], "cut in the middle": data[: len(data) // 2], "empty": b"", "tail": data + b"\n"}
    for at in range(len(lines)):
        changes[f"without line {at + 1}"] = b"".join(lines[:at] + lines[at + 1 :])
        changes[f"line {at + 1} twice"] = b"".join(lines[: at + 1] + lines[at:])
        for other in range(at):
            swapped = list(lines)
            swapped[at], swapped[other] = swapped[other], swapped[at]
            changes[f"lines {other + 1} and {at + 1} swapped"] = b"".join(swapped)
    return changes


@pytest.mark.parametrize("member", LINES)
def test_lines_taken_away_doubled_swapped_or_cut_are_found(members: dict[str, bytes], member: str) -> None:
    changes = each_change(members[member])
    assert len(changes) >= 6
    for change, data in changes.items():
        said = refused({**members, member: data})
        assert any(name in said for name in (*LINES, "manifest.json", "headers")), (change, said)


@pytest.mark.parametrize("member", ["manifest.json", "checkpoint", *LINES, "index.html"])
def test_every_flipped_byte_is_found(members: dict[str, bytes], member: str) -> None:
    """The lowest bit of every byte, and the highest of some: what remains JSON, base64 or text is what matters."""
    data = members[member]
    for at in range(len(data)):
        for bit in (0, 7) if at % 16 == 0 else (0,):
            refused({**members, member: data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]})


@pytest.mark.parametrize("member", ["manifest.json", "checkpoint", *LINES])
def test_a_missing_member_is_found(members: dict[str, bytes], member: str) -> None:
    rest = {name: data for name, data in members.items() if name != member}
    assert member in refused(rest)
    assert member in refused(pack(rest))


def test_a_stranger_among_the_members_is_found(members: dict[str, bytes]) -> None:
    assert "evil.js" in refused({**members, "evil.js": b""})
    assert "evil.js" in refused(pack({**members, "evil.js": b""}))
    turned = dict(reversed(members.items()))
    assert "in this order" in refused(pack(turned))


def test_the_page_must_tell_the_proved_story(members: dict[str, bytes]) -> None:
    assert b"payment.booked" in members["index.html"]
    changed = members["index.html"].replace(b"payment.booked", b"payment.failed")
    assert "index.html" in refused({**members, "index.html": changed})
    assert "manifest.json: page" in refused({name: data for name, data in members.items() if name != "index.html"})


def test_a_page_much_longer_than_the_bundle_takes_no_memory(contents: Contents) -> None:
    """What is nested deeply becomes sixty times as long when it is indented."""
    nested = b"[" * 60 + b"0," * 200_000 + b"0" + b"]" * 60
    deep = replace(with_line(contents, 0, lambda line: replace(line, event=nested)), page=contents.page)
    tracemalloc.start()
    try:
        assert not has_true_page(deep)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2_000_000


def nested_event(numbers: int) -> Event:
    """An event that is much longer when it is indented."""
    value: object = [0] * numbers
    for _ in range(50):
        value = [value]
    return Event(
        time="2026-01-01T00:00:09.000000000Z",
        event_name="nested",
        attributes={"payment": {"id": "PAY-8"}},
        body=value,
        transaction="PAY-8",
    )


def as_earlier(page: bytes) -> bytes:
    """A page as versions 1 and 2 had it, where nothing is too long to be indented."""
    page = re.sub(rb"h1,b,small.*?(?=</style>)", b"", page).replace(b'<table class="story">', b"<table>")
    return re.sub(rb"(Verdict of the flow <b>[^<]*</b>) on <code>[^<]*</code>", rb"\1", page)


def test_what_is_too_long_when_indented_is_shown_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since version 2 of the page, which stands where it differs from version 1 alone; pages of both are true still."""
    made = SmallLedger(store=SqliteStore(tmp_path / "store.sqlite"), index=MemoryIndex())
    made.ship("gateway/00000000000000aa", [nested_event(200), nested_event(50_000)])
    made.publish()
    read = Evidence(index=made.index, reader=made.reader, store=made.store)
    trail = "transaction/PAY-8"
    data = export_bundle(read, key=KEY, trails=[trail])
    contents = parse_members(unpack_bundle(data))
    assert contents.page is not None
    assert (contents.page_version, len(contents.page) < 300_000) == (3, True)
    assert b",0,0,0," in contents.page
    assert b"0,\n" + b"  " * 52 + b"0,\n" in contents.page, "the shorter event is indented"
    assert verify_bundle(data, KEY).page
    second = replace(contents, page=as_earlier(contents.page), page_version=2)
    assert verify_bundle(encode_members(second), KEY).page
    refused(encode_members(replace(second, page_version=1)))
    refused(encode_members(replace(second, page_version=3)))
    monkeypatch.setattr(page_module, "MAX_INDENTED_BYTES", 1 << 30)
    whole = with_page(contents, most_bytes=1 << 30).page
    monkeypatch.undo()
    assert whole is not None
    assert len(whole) > 5_000_000
    first = replace(contents, page=as_earlier(whole), page_version=1)
    assert verify_bundle(encode_members(first), KEY).page
    refused(encode_members(replace(first, page_version=2)))
    monkeypatch.setattr(bundle_export, "MAX_PAGE_BYTES", 10_000)
    with pytest.raises(TooLarge, match="the page for people would have more than 10000 bytes"):
        export_bundle(read, key=KEY, trails=[trail])
    assert export_bundle(read, key=KEY, trails=[trail], page=False)


def test_a_page_of_an_earlier_version_is_true_still(members: dict[str, bytes], contents: Contents) -> None:
    assert json.loads(members["manifest.json"])["page"] == 3
    page = as_earlier(members["index.html"])
    assert sha256(page).hexdigest() == "377a1de62e3381cd94c19e580599e3fec7abc076226f38c9bf4e91c3693182e7", (
        "its bytes as they were"
    )
    earlier = replace(contents, page=page, page_version=1)
    assert verify_bundle(encode_members(earlier), KEY).page
    refused(encode_members(replace(earlier, page_version=2)), "index.html")  # the same as version 1
    refused(encode_members(replace(earlier, page_version=3)), "index.html")
    refused(encode_members(replace(contents, page_version=1)), "index.html")


def test_the_page_says_of_which_trail_a_verdict_is(tmp_path: Path) -> None:
    """The one that the bundle is of first. A verdict of a trace that goes with it, and came later, stood there as the payment's."""
    made = SmallLedger(store=SqliteStore(tmp_path / "store.sqlite"), index=MemoryIndex())
    small_story(made)
    made.add_verdict(PAYMENT, "complete")
    made.add_verdict(TRACE, "failed")
    made.publish()
    read = Evidence(index=made.index, reader=made.reader, store=made.store)
    story = unpack_bundle(export_bundle(read, key=KEY, trails=[PAYMENT, TRACE]))["index.html"]
    told = "Verdict of the flow <b>payment</b> on <code>{}</code>: <b>{}</b></p>"
    assert re.findall(r"Verdict of.*", story.decode()) == [
        told.format(PAYMENT, "complete"),
        told.format(TRACE, "failed"),
    ]
    alone = unpack_bundle(export_bundle(read, key=KEY, trails=[TRACE]))["index.html"]
    assert re.findall(r"Verdict of.*", alone.decode()) == ["Verdict of the flow <b>payment</b>: <b>failed</b></p>"]


def test_a_page_is_compared_as_far_as_it_goes(contents: Contents) -> None:
    page = with_page(contents, most_bytes=1 << 20).page
    assert page == contents.page
    assert page is not None
    assert has_true_page(contents)
    for other in (
        b"",
        page[:-1],
        page + b" ",
        page[:500] + b"!" + page[501:],
        page.replace(b"</table>", b"</table >", 1),
    ):
        assert not has_true_page(replace(contents, page=other))


# ------------------------------------------------------------------------------- forgeries that keep every line readable


def with_line(contents: Contents, number: int, change: Callable[[BundleLine], BundleLine], trail: int = 0) -> Contents:
    """The contents with one line changed; manifest, page and form fit, as a forger would see to it."""
    part = contents.trails[trail]
    lines = list(part.lines)
    lines[number] = change(lines[number])
    trails = list(contents.trails)
    trails[trail] = replace(part, lines=tuple(lines))
    return replace(contents, trails=tuple(trails), page=None)


def as_json(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    """Change canonical JSON as an object, and write it canonically again."""

    def changed(data: bytes) -> bytes:
        value = json.loads(data)
        change(value)
        return msgspec.json.encode(value, order="sorted")

    return changed


def entry_with(**fields: object) -> Callable[[BundleLine], BundleLine]:
    change = as_json(lambda value: value.update(fields))
    return lambda line: replace(line, entry=change(line.entry))


FORGERIES: list[tuple[str, Callable[[Contents], Contents], str]] = [
    (
        "another event",
        lambda c: with_line(
            c, 0, lambda line: replace(line, event=as_json(lambda v: v.update(actor="bob"))(line.event or b""))
        ),
        r"trail\.ndjson line 1 .*digest differs",
    ),
    (
        "event moved",
        lambda c: with_line(c, 1, lambda line: replace(line, event=c.trails[0].lines[0].event)),
        r"trail\.ndjson line 2 .*entry of kind link",
    ),
    ("another reason", lambda c: with_line(c, 0, entry_with(why="key order_id: rule 1")), "chain is broken"),
    (
        "another time",
        lambda c: with_line(c, 0, entry_with(recorded="2025-01-01T00:00:00.000000000Z")),
        "chain is broken",
    ),
    (
        "verdict turned",
        lambda c: with_line(c, 4, entry_with(detail={"verdict": "complete"})),
        r"line 5 .*not in the log",
    ),
    ("position", lambda c: with_line(c, 1, entry_with(position=2)), "the entry says"),
    ("trail", lambda c: with_line(c, 1, entry_with(trail="transaction/PAY-2")), "the entry says"),
    ("no trail's name", lambda c: with_line(c, 1, entry_with(trail="nonsense")), "not the id of a trail"),
    (
        "an entry dropped, positions kept",
        lambda c: replace(
            c,
            trails=(replace(c.trails[0], lines=c.trails[0].lines[:2] + c.trails[0].lines[3:]), c.trails[1]),
            page=None,
        ),
        "the entry says",
    ),
    (
        "the head dropped",
        lambda c: replace(c, trails=(replace(c.trails[0], lines=c.trails[0].lines[:-1]), c.trails[1]), page=None),
        r"proofs\.ndjson: it has a path for leaf",
    ),
    (
        "a leaf moved",
        lambda c: with_line(c, 4, lambda line: replace(line, leaf=line.leaf + 1)),
        r"no path for this leaf|not in the log|has a path",
    ),
    (
        "a trail twice",
        lambda c: replace(c, trails=(*c.trails, c.trails[1]), page=None),
        "sorted by name, or one is there twice",
    ),
    ("no headers", lambda c: replace(c, headers=(), page=None), "no signed header for this event"),
    (
        "headers without facts",
        lambda c: replace(c, headers=tuple(replace(h, paths=()) for h in c.headers), page=None),
        "concerns no event",
    ),
    (
        "facts of a neighbour",
        lambda c: replace(
            c,
            headers=(
                replace(c.headers[0], paths=((3, c.headers[0].paths[0][1]), *c.headers[0].paths[1:])),
                *c.headers[1:],
            ),
            page=None,
        ),
        r"headers\.ndjson line 1",
    ),
    (
        "paths in another order",
        lambda c: replace(c, headers=tuple(replace(h, paths=tuple(reversed(h.paths))) for h in c.headers), page=None),
        r"headers\.ndjson line \d+: its paths are not in the order of their sequences",
    ),
    ("no enrolment", lambda c: replace(c, enrolments=c.enrolments[1:], page=None), "was not enrolled"),
    (
        "an enrolment too many",
        lambda c: replace(
            c,
            enrolments=(*c.enrolments, BundleLine(leaf=c.trails[0].lines[0].leaf, entry=c.trails[0].lines[0].entry)),
            page=None,
        ),
        "not an entry that enrols",
    ),
    (
        "a header of no event",
        lambda c: replace(c, trails=(c.trails[0],), page=None),
        "not one to show here",
    ),
]


@pytest.mark.parametrize(("forge", "said"), [case[1:] for case in FORGERIES], ids=[case[0] for case in FORGERIES])
def test_a_forgery_is_found_and_named(contents: Contents, forge: Callable[[Contents], Contents], said: str) -> None:
    forged = forge(contents)
    refused(encode_members(forged), said)
    refused(encode_members(with_page_or_without(forged)), said)


def with_page_or_without(contents: Contents) -> Contents:
    try:
        return with_page(contents, most_bytes=1 << 20)
    except VerificationError:
        return replace(contents, page=None)


def test_a_trail_that_nothing_links_to_is_not_of_the_story(evidence: Evidence) -> None:
    bundle = export_bundle(evidence, key=KEY, trails=[PAYMENT, "transaction/PAY-2"])
    assert "no entry of transaction/PAY-1 links to transaction/PAY-2" in refused(bundle)


def test_an_event_that_its_log_misplaced_is_found(tmp_path: Path) -> None:
    """Even the log's own key cannot put an event into a trail that it does not belong to."""
    ledger = SmallLedger(store=SqliteStore(tmp_path / "store.sqlite"), index=MemoryIndex())

    class Liar(Stitcher):
        def place(self, facts: Facts, stream: str, *, recorder: bool = False) -> Placement:
            return replace(super().place(facts, stream, recorder=recorder), trail="transaction/OTHER")

    ledger.stitcher = Liar()
    small_story(ledger, 1)
    bundle = export_bundle(
        Evidence(index=ledger.index, reader=ledger.reader, store=ledger.store), key=KEY, trails=["transaction/OTHER"]
    )
    assert "does not belong here" in refused(bundle)


def test_an_access_is_believed_of_recorders_alone(tmp_path: Path) -> None:
    ledger = SmallLedger(store=SqliteStore(tmp_path / "store.sqlite"), index=MemoryIndex())
    event = Event(transaction="T", access=Access(principal="ann", action="trail.read"))
    ledger.ship("api/00000000000000cc", [event], role="recorder")
    ledger.ship("evil/00000000000000dd", [event], role="collector")
    ledger.publish()
    evidence = Evidence(index=ledger.index, reader=ledger.reader, store=ledger.store)
    assert verify_bundle(export_bundle(evidence, key=KEY, trails=["access/ann"]), KEY).events == 1
    assert verify_bundle(export_bundle(evidence, key=KEY, trails=["transaction/T"]), KEY).events == 1


def test_an_entry_of_another_spelling_is_refused(contents: Contents) -> None:
    spaced = with_line(contents, 4, lambda line: replace(line, entry=line.entry.replace(b'{"', b'{ "', 1)))
    refused(encode_members(spaced), "canonical")
    again = encode_entry(decode_entry(contents.trails[0].lines[4].entry))
    assert again == contents.trails[0].lines[4].entry


# ---------------------------------------------------------------------------------------------------------------- fuzz

TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"null",
    b"-1",
    b"9" * 30,
    b"1e400",
    b'"\\ud800"',
    b"\n",
    b"[" * 2000,
    b"\xff",
]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_only_verification_errors(members: dict[str, bytes], data: st.DataObject) -> None:
    """Random cuts and insertions in any member, packed anew or given as members."""
    name = data.draw(st.sampled_from(sorted(members)))
    content = members[name]
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 200)))
    put = data.draw(st.binary(max_size=8) | st.lists(st.sampled_from(TOKENS), max_size=4).map(b"".join))
    changed = {**members, name: content[:start] + put + content[end:]}
    try:
        report: Report | None = verify_bundle(pack(changed) if data.draw(st.booleans()) else changed, KEY)
    except VerificationError:
        report = None
    assert report is None or changed == members


@given(
    st.dictionaries(
        st.sampled_from(["manifest.json", "checkpoint", *LINES, "index.html", "x"]), st.binary(), max_size=8
    )
)
def test_members_of_any_bytes_raise_only_verification_errors(members: dict[str, bytes]) -> None:
    with pytest.raises(VerificationError):
        verify_bundle(members, KEY)


@pytest.mark.parametrize("deep", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000])
def test_deep_nesting_is_refused(contents: Contents, members: dict[str, bytes], deep: bytes) -> None:
    refused(encode_members(with_line(contents, 0, lambda line: replace(line, event=deep))))
    refused({**members, "trail.ndjson": b'{"entry":' + deep + b',"event":null,"leaf":1}\n'})
    refused({**members, "manifest.json": deep})
    refused({**members, "headers.ndjson": b'{"entry":' + deep + b',"facts":[],"leaf":1}\n'})


@pytest.mark.parametrize(
    ("member", "line"),
    [
        (
            "headers.ndjson",
            b'{"entry":{},"facts":[%b],"leaf":0}\n' % b",".join([b'{"path":[],"sequence":0}'] * 200_000),
        ),
        (
            "headers.ndjson",
            b'{"entry":{},"facts":[{"path":[%b],"sequence":0}],"leaf":0}\n' % b",".join([b'""'] * 999_999),
        ),
        ("proofs.ndjson", b'{"hashes":[%b],"leaf":0}\n' % b",".join([b'""'] * 999_999)),
        ("trail.ndjson", b'{"entry":{},"event":{"body":[%b]},"leaf":0}\n' % b",".join([b"[]"] * 5_999_999)),
        ("trail.ndjson", b'{"entry":{},"event":{"body":"%b"},"leaf":0}\n' % (b"a" * (32 << 20))),
    ],
    ids=["paths", "hashes of a path", "hashes", "an event's values", "an event"],
)
def test_a_list_that_is_longer_than_any_takes_no_memory(members: dict[str, bytes], member: str, line: bytes) -> None:
    """Small when packed; each of its millions of values would be an object."""
    hostile = {**members, member: line}
    tracemalloc.start()
    try:
        refused(hostile, rf"{member} line 1.* (lists more than there can be|at most \d+ are one)")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5 * len(line) + 1_000_000
