"""The page's verifier under node, held to the same answers and the same trees as our own: what Python proves it proves, and no more."""

from __future__ import annotations

import base64
import copy
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from correlator.merkle import consistency_proof, inclusion_proof, leaf_hash, node_levels, root_of
from tests.support.apis import Api
from tests.support.ledgers import SIGNER
from tests.support.need import need

pytestmark = [pytest.mark.browser, pytest.mark.anyio]
TRAIL = "transaction/PAY-1"
Run = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs cases under node, all in one process."""
    need(shutil.which("node"), "the page's verifier runs under node")
    script = tmp_path_factory.mktemp("verify") / "verify.mjs"
    script.write_bytes(files("audit_api.web").joinpath("static", "verify.js").read_bytes())

    def run(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        command = ["node", str(Path(__file__).with_name("verifying.mjs")), str(script)]
        done = subprocess.run(command, input=json.dumps(cases).encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        answers: list[dict[str, Any]] = json.loads(done.stdout)
        assert len(answers) == len(cases)
        return answers

    return run


def text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=4)
@given(st.lists(_JSON, min_size=60, max_size=60))
def test_canonical_json_is_rfc_8785(node: Run, values: list[Any]) -> None:
    told = node([{"run": "canonical", "text": json.dumps(value)} for value in values])
    assert [one["value"].encode() for one in told] == [rfc8785.dumps(value) for value in values]


def test_canonical_json_of_names_that_javascript_treats_apart(node: Run) -> None:
    for value in (
        {"__proto__": 1, "constructor": 2},
        {"10": 1, "9": 2, "a": 3},
        {"\ufb33": 1, "\U0001f600": 2},
        [-0.0, 1e21],
    ):
        (told,) = node([{"run": "canonical", "text": json.dumps(value)}])
        assert told["value"].encode() == rfc8785.dumps(value)


def tree(size: int) -> tuple[list[bytes], Callable[[Any], list[bytes]]]:
    leaves = [leaf_hash(b"entry %d" % at) for at in range(size)]
    levels = node_levels(b"".join(leaves))
    return leaves, lambda nodes: [levels[level][32 * at : 32 * at + 32] for level, at in nodes]


def test_inclusion_in_every_small_tree_and_with_each_hash_flipped(node: Run) -> None:
    cases, wanted = [], []
    for size in range(1, 18):
        leaves, read = tree(size)
        root = root_of(leaves)
        for index in range(size):
            proof = list(inclusion_proof(index, size, read))
            true = {"run": "included", "leaf": text(leaves[index]), "index": index, "size": size, "root": text(root)}
            flipped = [[*proof[:at], sha256(proof[at]).digest(), *proof[at + 1 :]] for at in range(len(proof))]
            for one, holds in [
                (proof, True),
                *((one, False) for one in flipped),
                ([*proof, root], False),
                (proof[1:], size == 1),
            ]:
                cases.append(true | {"proof": [text(part) for part in one]})
                wanted.append(holds)
            cases.append(true | {"index": index + size, "proof": [text(part) for part in proof]})
            wanted.append(False)
    assert [one["value"] for one in node(cases)] == wanted
    assert wanted.count(True) > 150
    assert wanted.count(False) > 600


def test_inclusion_beyond_32_bits(node: Run) -> None:
    size, index = (1 << 40) + 3, (1 << 40) + 2  # the last leaf: alone on the right, so its path is short
    leaf, left, pair = leaf_hash(b"last"), leaf_hash(b"a big tree"), leaf_hash(b"a pair")
    inner = sha256(b"\x01" + pair + leaf).digest()
    root = sha256(b"\x01" + left + inner).digest()
    case = {"run": "included", "leaf": text(leaf), "index": index, "size": size, "root": text(root)}
    told = node([case | {"proof": [text(pair), text(left)]}, case | {"proof": [text(left), text(pair)]}])
    assert [one["value"] for one in told] == [True, False]


def test_consistency_of_every_two_small_trees(node: Run) -> None:
    cases, wanted = [], []
    for second in range(1, 14):
        leaves, read = tree(second)
        for first in range(1, second + 1):
            roots = [root_of(leaves[:first]), root_of(leaves)]
            proof = list(consistency_proof(first, second, read))
            case = {"run": "consistent", "first": first, "second": second, "roots": [text(root) for root in roots]}
            cases.append(case | {"proof": [text(part) for part in proof]})
            wanted.append(True)
            for at in range(len(proof)):
                other = [*proof[:at], sha256(proof[at]).digest(), *proof[at + 1 :]]
                cases.append(case | {"proof": [text(part) for part in other]})
                wanted.append(False)
            cases.append(
                case | {"proof": [text(part) for part in proof], "roots": [text(leaf_hash(b"")), text(roots[1])]}
            )
            wanted.append(False)
    assert [one["value"] for one in node(cases)] == wanted


async def answer(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get(f"/v1/trails/{TRAIL}?proofs=true")).json()
    return found


def case(page: dict[str, Any], key: str = SIGNER.verifier.vkey) -> dict[str, Any]:
    return {"run": "trail", "trail": TRAIL, "pages": [json.dumps(page)], "key": key}


async def test_a_true_answer_holds(node: Run, api: Api) -> None:
    page = await answer(api)
    (told,) = node([case(page)])
    events = [row["leaf"] for row in page["entries"] if row["entry"]["kind"] == "event"]
    assert told == {"value": {"entries": len(page["entries"]), "events": events, "signed": True}}
    assert len(events) == 2


async def test_a_trail_in_pages_holds_and_not_without_one_of_them(node: Run, api: Api) -> None:
    pages = [(await api.get(f"/v1/trails/{TRAIL}?proofs=true&limit=2&start={start}")).text for start in range(0, 6, 2)]
    pages = [page for page in pages if json.loads(page)["entries"]]
    whole = {"run": "trail", "trail": TRAIL, "pages": pages, "key": SIGNER.verifier.vkey}
    told = node(
        [whole, whole | {"pages": pages[1:]}, whole | {"pages": pages[:-1]}, whole | {"pages": [*pages, pages[0]]}]
    )
    assert "value" in told[0]
    assert [one["problem"] for one in told[1:]] == ["position", "count", "position"]


_GONE = object()


def changed(page: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    """A copy in which what stands at this path is another value, or is gone."""
    other: Any = copy.deepcopy(page)
    place = other
    for part in path[:-1]:
        place = place[part]
    if to is _GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return dict(other)


async def test_whatever_is_changed_is_found(node: Run, api: Api) -> None:
    page = await answer(api)
    changes: list[tuple[Any, ...]] = [
        ("trail", "transaction/PAY-2"),
        ("checkpoint", "size", page["checkpoint"]["size"] + 1),
    ]
    for at, row in enumerate(page["entries"]):
        here = ("entries", at)
        for name, value in row["entry"].items():
            new = {"str": f"{value}0", "int": 7_777, "dict": {"x": 1}}[type(value).__name__]
            changes.append((*here, "entry", name, new))
        changes += [
            (*here, "entry", "more", 1),
            (*here, "leaf", row["leaf"] + 1),
            (*here, _GONE),
            (*here, "proof", _GONE),
        ]
        changes += [(*here, "proof", part, text(bytes(32))) for part in range(len(row["proof"]))]
        if row.get("event"):
            changes += [(*here, "event", name, _GONE) for name in row["event"]]
            changes += [(*here, "event", None), (*here, "event", _GONE)]
    changes += [
        ("entries", [*page["entries"][:at], *page["entries"][at - 1 :]]) for at in range(1, len(page["entries"]))
    ]
    note = page["checkpoint"]["note"]
    for at in range(0, len(note), 3):
        if note[at].isalnum():
            changes.append(("checkpoint", "note", note[:at] + ("A" if note[at] != "A" else "B") + note[at + 1 :]))
    told = node([case(changed(page, *path, to=to)) for *path, to in changes])
    assert [change for change, one in zip(changes, told, strict=True) if "problem" not in one] == []
    assert len(changes) > 120


async def test_another_ledgers_key_is_not_believed(node: Run, api: Api) -> None:
    page = await answer(api)
    name, key_id, key = SIGNER.verifier.vkey.split("+", 2)
    told = node(
        [case(page, f"{name}+00000000+{key}"), case(page, f"other.example+{key_id}+{key}"), case(page, "nonsense")]
    )
    assert [one["problem"] for one in told] == ["vkey", "vkey", "vkey"]


def test_what_may_be_pinned(node: Run) -> None:
    fingerprint = SIGNER.verifier.fingerprint
    texts = [fingerprint, f"  {fingerprint.upper()} ", SIGNER.verifier.vkey, "SHA256:12", "", "x+y+z"]
    told = node([{"run": "pin", "text": one} for one in texts])
    assert [one["value"] for one in told] == [fingerprint, fingerprint, fingerprint, None, None, None]
