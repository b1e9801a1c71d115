"""A ledger that runs, with the demo's payments in it, and a Chromium that looks at its pages."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.support.need import need

HERE = Path(__file__).resolve().parent
PATIENCE_SECONDS = 60.0
"""A machine with two cores and more to do may take so long; each wait ends with what is waited for."""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The demo's ledger: where its pages are, the tokens of an auditor and an sre, its key, and a payment that was forgotten."""

    url: str
    auditor: str
    sre: str
    vkey: str
    forgotten: str
    key_file: Path
    token: Callable[[str, str], str]
    """A new principal's, of a name and a role."""


@pytest.fixture(scope="module")
def desk(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The demo, made once, and left running."""
    here = tmp_path_factory.mktemp("demo") / "examples" / "payments"
    shutil.copytree(
        repo_root / "examples" / "payments", here, ignore=shutil.ignore_patterns("tally-data", "__pycache__")
    )
    environment = os.environ | {"PYTHONPATH": str(repo_root), "COLUMNS": "110", "PYTHONUNBUFFERED": "1"}
    environment.pop("TALLY_CONFIG", None)
    run = [sys.executable, str(here / "run.py"), "--keep-running"]
    demo = subprocess.Popen(
        run,
        cwd=here,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(300, demo.terminate)  # a demo that hangs is a failure, not a test that hangs
    watchdog.start()
    told, url = "", ""
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            told += line
            found = re.search(r"its pages: (http\S+)/;", line)
            if found:
                url = found[1]
                break
        assert url, told
        watchdog.cancel()

        def token(name: str, role: str) -> str:
            command = [sys.executable, "-m", "deploy.cli", "--config", str(here / "tally.toml")]
            done = subprocess.run(
                [*command, "token", "add", name, "--role", role],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            return done.stdout.split()[0]

        forgotten = re.search(r"tally trail (\S+)", told)
        assert forgotten is not None
        key = here / "tally-data" / "keys" / "log.vkey"
        yield Desk(
            url=url,
            auditor=token("ann", "auditor"),
            sre=token("sam", "sre"),
            vkey=key.read_text().strip(),
            forgotten=forgotten[1],
            key_file=key,
            token=token,
        )
    finally:
        watchdog.cancel()
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=60)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core, as the lock file has it."""
    need(shutil.which("npm"), "axe-core comes with npm")
    folder = tmp_path_factory.mktemp("axe")
    for name in (".npmrc", "package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-progress"], cwd=folder, capture_output=True, text=True, check=False
    )
    need(done.returncode == 0, f"npm ci did not succeed: {done.stderr}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium; Playwright's own is never fetched.

    No longer than the module: Playwright's loop runs in this thread until it is stopped, and other tests have loops of their own.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    need(path, "no Chromium: install the package chromium")
    expect.set_options(timeout=PATIENCE_SECONDS * 1_000)
    with sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # its sandbox refuses root, which CI may be
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        browser.close()


@dataclass
class Reader:
    """Somebody at a browser. `complaints`: what the console said that it should not, refusals by the page's policy among it."""

    page: Page
    desk: Desk
    complaints: list[str] = field(default_factory=list)

    def sign_in(self, token: str) -> None:
        """Through the form."""
        self.page.goto(self.desk.url)
        self.page.get_by_label("Access token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url("**/desk/trails")

    def open_story(self, payment: str) -> None:
        """Of a payment."""
        self.page.goto(f"{self.desk.url}/desk/trails/transaction/{payment}")

    def open_until(self, url: str, wanted: Locator) -> None:
        """Open a page again and again until it shows this: what is on record comes into the log when the correlator has come to it."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            self.page.goto(url)
            if wanted.count():
                return
            assert time.monotonic() < until, f"{url} does not show {wanted}"

    def verify(self, *, trusting: str = "") -> str:
        """Verify in the browser, and with a key when one is given; gives the panel's state."""
        panel = self.page.locator("#proof-panel")
        if trusting:
            panel.get_by_label("The log’s key").fill(trusting)
            panel.get_by_role("button", name="Trust this key").click()
        else:
            panel.get_by_role("button", name="Verify").click()
        self.page.locator("#proof-panel.good, #proof-panel.bad, #proof-panel.unsure").wait_for()
        return (panel.get_attribute("class") or "").removeprefix("proof ")


def reader_of(context: BrowserContext, desk: Desk) -> Reader:
    """Who looks through this context."""
    context.set_default_timeout(PATIENCE_SECONDS * 1_000)
    reader = Reader(context.new_page(), desk)
    reader.page.on(
        "console",
        lambda message: reader.complaints.append(message.text) if message.type in ("error", "warning") else None,
    )
    reader.page.on("pageerror", lambda error: reader.complaints.append(str(error)))
    return reader


@pytest.fixture(scope="module")
def session(chromium: Browser, desk: Desk) -> Any:
    """The cookie of an auditor who has signed in."""
    context = chromium.new_context()
    reader_of(context, desk).sign_in(desk.auditor)
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def reader(chromium: Browser, desk: Desk, session: Any) -> Iterator[Reader]:
    """An auditor who has signed in; at the end nothing may have been complained about."""
    context = chromium.new_context(locale="en-GB", storage_state=session)
    reader = reader_of(context, desk)
    reader.page.goto(desk.url)
    yield reader
    context.close()
    assert reader.complaints == []
