"""Stitching: an event's trail follows from that event alone, and everything else it carries becomes a link."""

from hypothesis import given
from hypothesis import strategies as st

from collector.event import Access, Facts, Incident
from correlator.stitch import Placement, Stitcher

STREAM = "gateway/0123456789abcdef"
TRACE = "0af7651916cd43dd8448eb211c80319c"
DIGEST = "0" * 64


def facts(**fields: object) -> Facts:
    return Facts(digest=DIGEST, **fields)  # type: ignore[arg-type]  # the tests say what they set


def test_an_explicit_transaction_wins_and_links_the_rest() -> None:
    placed = Stitcher(["order_id"]).place(
        facts(
            transaction="pay-1",
            keys={"user": "u1", "order_id": "o1"},
            trace_id=TRACE,
            found={"transaction": "attributes.payment_id", "order_id": "rule 2"},
        ),
        STREAM,
    )
    assert placed == Placement(
        "transaction/pay-1",
        "transaction: attributes.payment_id",
        (("key/order_id/o1", "key order_id: rule 2"), ("key/user/u1", "key user"), (f"trace/{TRACE}", "trace")),
    )


def test_else_the_strongest_declared_key() -> None:
    both = facts(keys={"account": "a", "order_id": "o1"}, trace_id=TRACE)
    assert Stitcher(["order_id", "account"]).place(both, STREAM).trail == "key/order_id/o1"
    assert Stitcher(["account", "order_id"]).place(both, STREAM).trail == "key/account/a"
    assert Stitcher([]).place(both, STREAM).trail == "key/account/a"
    assert Stitcher(["order_id"]).place(both, STREAM).links == (
        ("key/account/a", "key account"),
        (f"trace/{TRACE}", "trace"),
    )


def test_an_amount_is_no_identity() -> None:
    with_key = facts(keys={"amount.eur": "12.5", "order_id": "o1"})
    place = Stitcher().place(with_key, STREAM)
    assert (place.trail, place.links) == ("key/order_id/o1", ())
    alone = facts(keys={"amount.eur": "12.5"})
    assert Stitcher(key_order=("amount.eur",)).place(alone, STREAM).trail == f"stream/{STREAM}"
    traced = facts(keys={"amount.eur": "12.5"}, trace_id="ab" * 16)
    assert Stitcher().place(traced, STREAM).trail == "trace/" + "ab" * 16
    paid = facts(transaction="T", keys={"amount.eur": "12.5"})
    assert Stitcher().place(paid, STREAM).links == ()


def test_else_its_trace_else_its_stream() -> None:
    assert Stitcher().place(facts(trace_id=TRACE), STREAM) == Placement(f"trace/{TRACE}", "trace")
    assert Stitcher().place(facts(), STREAM) == Placement(f"stream/{STREAM}", "stream")
    assert Stitcher().place(facts(trace_id="not a trace"), STREAM) == Placement(f"stream/{STREAM}", "stream")
    assert Stitcher().place(facts(keys={"order_id": ""}), STREAM) == Placement(f"stream/{STREAM}", "stream")


def test_everything_is_scoped_by_tenant() -> None:
    placed = Stitcher().place(facts(transaction="t", keys={"k": "v"}, trace_id=TRACE, tenant="acme"), STREAM)
    assert placed.trail == "tenant/acme/transaction/t"
    assert [trail for trail, _ in placed.links] == ["tenant/acme/key/k/v", f"tenant/acme/trace/{TRACE}"]
    assert Stitcher().place(facts(tenant="acme"), STREAM).trail == f"tenant/acme/stream/{STREAM}"


def test_an_access_counts_only_when_a_recorder_of_ours_tells_it() -> None:
    access = facts(access=Access(principal="ann", action="read", trail="transaction/t"), trace_id=TRACE)
    assert Stitcher().place(access, STREAM, recorder=True) == Placement("access/ann", "access")
    assert Stitcher().place(access, STREAM) == Placement(f"trace/{TRACE}", "trace")


def test_an_incident_whose_id_can_be_none_is_placed_like_any_other_event() -> None:
    def incident(id_: str) -> Facts:
        return facts(incident=Incident(id=id_, state="opened", cause="gap"), trace_id=TRACE)

    assert Stitcher().place(incident("ab" * 16), STREAM, recorder=True) == Placement(
        "incident/" + "ab" * 16, "incident"
    )
    for id_ in ("", "x", "AB" * 16, "ab" * 17):
        assert Stitcher().place(incident(id_), STREAM, recorder=True) == Placement(f"trace/{TRACE}", "trace")


def test_a_long_rule_cannot_make_an_entry_too_long() -> None:
    placed = Stitcher().place(facts(transaction="t", found={"transaction": "x" * 60_000}), STREAM)
    assert len(placed.why) == 300


def test_what_was_placed_before_changes_nothing() -> None:
    """A key that is called as a place where identities are found, with the rule for its value: only the pairs are alike."""
    rule = ("transaction", "attributes.payment_id")
    found = facts(transaction="pay-1", trace_id=TRACE, found=dict([rule]))
    keyed = facts(transaction="pay-1", trace_id=TRACE, keys=dict([rule]))
    stitcher = Stitcher()
    for one in (keyed, found, keyed):
        assert stitcher.place(one, STREAM) == Stitcher().place(one, STREAM)


names = st.sampled_from(["a", "b", "c", "d"])


@given(
    st.sampled_from(["", "t1"]),
    st.dictionaries(names, st.sampled_from(["1", "2"])),
    st.sampled_from(["", TRACE]),
    st.permutations(["a", "b", "c", "d"]),
)
def test_every_identity_is_the_trail_or_one_link(
    transaction: str, keys: dict[str, str], trace: str, order: list[str]
) -> None:
    stitcher = Stitcher(order)
    what = facts(transaction=transaction, keys=keys, trace_id=trace)
    placed = stitcher.place(what, STREAM)
    trails = [placed.trail, *(trail for trail, _ in placed.links)]
    expected = (
        ([f"transaction/{transaction}"] if transaction else [])
        + [f"key/{name}/{keys[name]}" for name in order if name in keys]
        + ([f"trace/{trace}"] if trace else [])
    )
    assert trails == (expected or [f"stream/{STREAM}"])
    assert stitcher.place(what, STREAM) == placed


few = st.sampled_from(["", "a", "b"])
any_facts = st.builds(
    Facts,
    digest=st.just(DIGEST),
    transaction=few,
    tenant=st.sampled_from(["", "acme"]),
    trace_id=st.sampled_from(["", TRACE, "bad"]),
    keys=st.dictionaries(few, few, max_size=2),
    found=st.dictionaries(st.sampled_from(["transaction", "a"]), few, max_size=2),
    access=st.none() | st.builds(Access, principal=few, action=few),
)


@given(batch=st.lists(any_facts.flatmap(lambda one: st.lists(st.just(one), max_size=3))), recorder=st.booleans())
def test_a_batch_is_placed_event_by_event(batch: list[list[Facts]], recorder: bool) -> None:
    events = [one for run in batch for one in run]
    placed = Stitcher(["b"]).place_all(events, STREAM, recorder=recorder)
    assert placed == [Stitcher(["b"]).place(one, STREAM, recorder=recorder) for one in events]
