"""The tamper table: every case of `tests.support.tampering`, and what is said of it."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from correlator.archive import unpack
from correlator.errors import VerificationError
from correlator.verify import verify_bundle
from deploy.reading import open_ledger
from tests.support.tampering import HARMLESS, LEDGER_CASES, MEMBER_CASES, Case
from tests.support.whole_ledger import Made, make_whole_ledger

__all__ = ["tamper_table"]

_MAX_SAID = 110


def tamper_table(folder: Path) -> int:
    """Tamper with everything and print the table; gives how many cases were not as they must be."""
    made = make_whole_ledger(folder)
    rows: dict[tuple[str, str], list[tuple[str, str, bool]]] = defaultdict(list)
    for case in LEDGER_CASES:
        said, good = _checked(case, made, folder / "copy")
        rows[case.kind, case.thing].append((case.action, said, good))
    bundle = _bundle(made)
    for member_case in MEMBER_CASES:
        members = dict(bundle)
        changed = member_case.change(members.pop(member_case.member))
        if changed is not None:
            members = {name: changed if name == member_case.member else bundle[name] for name in bundle}
        said, good = _verified(members, made, member_case.named)
        rows["bundle", member_case.member].append((member_case.action, said, good))
    print("| kind | thing | what was done to it | what was said, for instance |")
    print("|---|---|---|---|")
    failed = 0
    for (kind, thing), cases in rows.items():
        failed += sum(not good for _, _, good in cases)
        found = [(action, said) for action, said, good in cases if good and said]
        for action, said, good in cases:
            if not good:
                print(f"| {kind} | {thing} | {action} | **NOT FOUND**: {_short(said)} |")
        harmless = {action: HARMLESS[f"{kind}: {thing}: {action}"] for action, said, good in cases if good and not said}
        if found:
            actions = ", ".join(dict.fromkeys(action for action, _ in found))
            print(f"| {kind} | {thing} | {actions} | {_short(found[0][1])} |")
        for action, why in harmless.items():
            print(f"| {kind} | {thing} | {action} | no finding: {why} |")
    total = sum(map(len, rows.values()))
    print(
        f"\n{total} changes, {total - failed - len(HARMLESS)} found and named, {len(HARMLESS)} harmless, {failed} missed."
    )
    return failed


def _checked(case: Case, made: Made, folder: Path) -> tuple[str, bool]:
    ledger = made.ledger.copy(folder)
    try:
        case.do(ledger)
        said = [str(finding) for finding in ledger.check()]
    finally:
        shutil.rmtree(folder)
    if str(case) in HARMLESS:
        return "; ".join(said), not said
    named = [one for one in said if re.search(case.named, one)]
    return _impersonal([*named, *said]), bool(named)


def _verified(members: dict[str, bytes], made: Made, named: str) -> tuple[str, bool]:
    try:
        verify_bundle(members, made.ledger.key)
    except VerificationError as error:
        return str(error), re.search(named, str(error)) is not None
    return "", False


def _bundle(made: Made) -> dict[str, bytes]:
    with open_ledger(made.ledger.config) as ledger:
        (summary,) = ledger.find("p12")
        return dict(unpack(ledger.export(summary)[0]))


def _impersonal(said: Sequence[str]) -> str:
    """The first sentence, with what changes from run to run left out."""
    if not said:
        return ""
    text = re.sub(r"\b[0-9a-f]{64}\b", "…", said[0])
    return re.sub(r"(?<=/)[0-9a-f]{16,64}\b", "…", text)


def _short(text: str) -> str:
    text = re.sub(r"\s+", " ", text).replace("|", "\\|")
    return text if len(text) <= _MAX_SAID else f"{text[:_MAX_SAID]} …"
