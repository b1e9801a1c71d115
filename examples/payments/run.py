"""The demo: starts a ledger and five services, makes forty payments, and shows what can be proved about them.

    python examples/payments/run.py [--keep-running]

Every service has a sidecar of its own. Nothing here knows Tallystick but this file: the services log as they would to anyone.
Everything that is started is stopped at the end; the data stays in examples/payments/tally-data for `tally trail`.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CONFIG = HERE / "tally.toml"
DATA = HERE / "tally-data"
KEY = DATA / "keys" / "log.vkey"
LOG = DATA / "up.log"
PAYMENTS = 40
VERDICT_SECONDS = 40.0

SERVICES = ("risk", "ledger", "notifications", "payments", "gateway")
"""In the order of starting: each knows the addresses of those before it."""

EXPECTED = {
    "success": "complete",
    "decline": "complete",
    "retry": "complete",
    "timeout": "compensated",
    "compensation": "compensated",
    "forget": "incomplete",
}


def main() -> int:
    """Run the demo; 0 when every payment got the verdict that it should."""
    sys.path.insert(0, str(ROOT))
    from examples.payments.shoppers import pay_all, payments  # noqa: PLC0415  (found only now)

    arguments = argparse.ArgumentParser(description="The payments demo.")
    arguments.add_argument("--keep-running", action="store_true", help="leave the ledger running until Ctrl-C")
    keep_running = arguments.parse_args().keep_running
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that what was started is stopped
    started = time.monotonic()
    with ExitStack() as stack:
        sidecars = start_ledger(stack)
        with ExitStack() as services:
            gateway = start_services(services, sidecars)
            orders = payments(PAYMENTS, run=secrets.token_hex(2))
            told(f"making {len(orders)} payments through five services")
            answers = pay_all(gateway, orders)
            told("the gateway answered: " + ", ".join(f"{count} {answer}" for answer, count in sorted(answers.items())))
        kinds = {f"transaction/{order.payment_id}": order.rehearse for order in orders}
        told("the services have stopped; waiting for the verdicts (the flow's deadline is 6 s)")
        verdicts = await_verdicts(set(kinds))
        show_verdicts(kinds, verdicts)
        right = all(verdicts.get(trail) == EXPECTED[kind] for trail, kind in kinds.items())
        forgotten = next(trail for trail, kind in kinds.items() if kind == "forget").removeprefix("transaction/")
        undone = next(trail for trail, kind in kinds.items() if kind == "compensation").removeprefix("transaction/")
        bundle = show_proof(forgotten)
        show_next(forgotten, undone, bundle)
        told(f"done in {time.monotonic() - started:.0f} s")
        if keep_running:
            told(f"the ledger keeps running, and its pages: {sidecars['api']['http']}/; Ctrl-C stops it")
            signal.pause()
    return 0 if right else 1


def told(text: str) -> None:
    """Say what is going on."""
    print(f"── {text}", flush=True)


# ------------------------------------------------------------------------------------------------------------ processes


def start_ledger(stack: ExitStack) -> dict[str, dict[str, str]]:
    """Start `tally up`; gives each process's addresses by its name."""
    told("starting five sidecars, the correlator and the API (tally up)")
    DATA.mkdir(mode=0o700, exist_ok=True)
    log = stack.enter_context(LOG.open("wb"))
    process = subprocess.Popen([*tally(), "up", "--json"], stdout=subprocess.PIPE, stderr=log, start_new_session=True)
    stack.callback(stop, process)
    assert process.stdout is not None
    text = b""
    while line := process.stdout.readline():
        text += line
        if line == b"}\n":
            return {one["name"]: one["addresses"] for one in json.loads(text)["ready"]}
    process.wait()
    sys.exit(f"the ledger did not start:\n{LOG.read_text(errors='replace')}")


def start_services(stack: ExitStack, sidecars: dict[str, dict[str, str]]) -> str:
    """Start the five services, each beside its sidecar; gives the gateway's URL."""
    urls: dict[str, str] = {}
    for name in SERVICES:
        sidecar = sidecars[f"collector-{name}"]
        environment = os.environ | urls | {"SIDECAR_OTLP": sidecar["http"], "SIDECAR_FORWARD": sidecar["forward"]}
        process = subprocess.Popen(
            [sys.executable, "-m", f"examples.payments.{name}"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        stack.callback(stop, process)
        assert process.stdout is not None
        urls[f"{name.upper()}_URL"] = f"http://127.0.0.1:{int(process.stdout.readline())}"
    return urls["GATEWAY_URL"]


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to stop, and see to it that it has."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def tally() -> list[str]:
    """The `tally` command with the demo's configuration."""
    return [sys.executable, "-m", "deploy.cli", "--config", str(CONFIG)]


def ask_tally(*arguments: str) -> Any:
    """What a `tally` command answers as JSON."""
    answer = subprocess.run([*tally(), *arguments, "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    return json.loads(answer.stdout)


# -------------------------------------------------------------------------------------------------------------- results


def await_verdicts(trails: set[str]) -> dict[str, str]:
    """The verdict of each of these trails, once all have one; what there is when the time is up."""
    deadline = time.monotonic() + VERDICT_SECONDS
    while True:
        found = {
            one["trail"]: one["status"]
            for one in ask_tally("find", "--kind", "transaction", "--limit", "200")["trails"]
        }
        verdicts = {
            trail: status for trail, status in found.items() if trail in trails and status not in ("ok", "error")
        }
        if len(verdicts) == len(trails) or time.monotonic() > deadline:
            return verdicts
        time.sleep(1.0)


def show_verdicts(kinds: dict[str, str], verdicts: dict[str, str]) -> None:
    """A table: what was rehearsed, and what the trails say."""
    counted = Counter((kind, verdicts.get(trail, "no verdict")) for trail, kind in kinds.items())
    print(f"\n   {'payments':>8}  {'what happened':<14}  verdict")
    for (kind, verdict), count in sorted(counted.items(), key=lambda item: list(EXPECTED).index(item[0][0])):
        print(f"   {count:>8}  {kind:<14}  {verdict}{'' if verdict == EXPECTED[kind] else '   (unexpected!)'}")
    print(flush=True)


def show_proof(payment: str) -> Path:
    """The story of one payment, and a bundle of it, verified with nothing but the log's public key."""
    told(f"nobody noticed that one customer was never told. The trail did: tally trail {payment}")
    print(flush=True)
    width = str(max(60, min(shutil.get_terminal_size((110, 40)).columns, 140)))
    subprocess.run([*tally(), "trail", payment, "--width", width], cwd=ROOT, check=False)
    bundle = DATA / f"{payment}.zip"
    print()
    told("exporting it, and verifying the export offline with the log's public key")
    print(flush=True)
    subprocess.run([*tally(), "export", payment, "-o", str(bundle)], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    subprocess.run([*tally(), "verify", str(bundle), "--key", str(KEY)], cwd=ROOT, check=True)
    return bundle


def show_next(forgotten: str, undone: str, bundle: Path) -> None:
    """What to try next."""
    here = Path.cwd()
    command = Path(sys.executable).with_name("tally")

    def shown(path: Path) -> str:
        return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

    name = shown(command) if command.exists() else "tally"
    print(
        f"""
   Try next:
     export TALLY_CONFIG={shown(CONFIG)}
     {name} trail {undone}                # a payment that was undone, step by step
     {name} find --status incomplete          # every payment that something is missing from
     {name} find --key order_id:{forgotten.replace("pay-", "order-")}
     {name} verify {shown(bundle)} --key {shown(KEY)}
     {name} check                             # the whole store against the whole log
     {name} token add ann --role auditor      # prints the token to sign in with, once
     {name} up                                # run it all again; the address of “api” is that of the pages
"""
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
