"""The demo (examples/payments), running: its five services beside their sidecars, and customers who pay every second.

One of its sidecars, that of the service ``risk``, is not run by `tally up`, which would start it again: who makes faults kills it and starts it. Its clock is asked about, and
its ports are fixed, for the service and Prometheus go on knowing it.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.processes import running
from drills.installation import until
from examples.payments.run import CONFIG, SERVICES, start_services
from examples.payments.shoppers import orders, pay_all
from tests.servers.prometheus import free_port
from tests.support.installed import Installed, auditor_token
from tests.support.tally_up import Up, supervised

__all__ = ["APART", "EVERYDAY", "Demo", "Sidecar", "demo"]

APART = "risk"
"""Whose sidecar runs apart."""

EVERYDAY = ("success", "success", "retry")
"""What the customers of a second rehearse when all is well."""

_DECLINED_EVERY = 50
"""Of the seconds: then somebody's payment is declined, which is an error of two services, and nothing to tell anybody."""

_FIXED = """
[sidecars.{name}]
[sidecars.{name}.http]
port = {http}
[sidecars.{name}.forward]
port = {forward}
[sidecars.{name}.clock]
{clock}
"""


class Sidecar:
    """A sidecar beside those of `tally up`, which nobody starts again: it is killed, and started by who killed it.

    Args:
        folder: with a configuration in ``apart.toml`` that says which ports it has.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> dict[str, str]:
        """Start it; gives its addresses by the way in, once it is ready."""
        command = [sys.executable, "-m", "deploy.cli", "--config", str(self._folder / "apart.toml")]
        with (self._folder / "apart.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "run", "collector", "--name", APART], stdin=subprocess.DEVNULL, stderr=log
            )
        pid, run = self._process.pid, self._folder / "tally-data" / "run"
        (mine,) = until("the sidecar apart is ready", lambda: [one for one in running(run) if one.pid == pid])
        return dict(mine.addresses)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it as a service manager does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            finally:
                self.kill()


class Demo(Installed):
    """The demo's ledger, with the customers of its gateway.

    Attributes:
        apart: the sidecar that may be killed.
        answers: what the gateway said, and how often.
    """

    def __init__(self, folder: Path, up: Up, token: str, *, apart: Sidecar, gateway: str) -> None:
        super().__init__(folder, up, token)
        self.apart = apart
        self.answers: Counter[str] = Counter()
        self._gateway = gateway
        self._dice = random.Random(7)
        self._at = 0

    def second(self, rehearse: Sequence[str] = EVERYDAY) -> None:
        """A second's customers, each rehearsing something (examples/payments/shoppers.py); and somebody reads trails."""
        self._at += 1
        kinds = ("decline", *rehearse[1:]) if self._at % _DECLINED_EVERY == 0 else rehearse
        answers = pay_all(self._gateway, orders(kinds, run=f"{self._at:04d}", dice=self._dice))
        self.answers += answers
        if sum(answers.values()) != len(kinds) or answers.keys() - {"paid", "declined", "failed, nothing was taken"}:
            raise RuntimeError(f"the gateway answered: {dict(answers)}")
        address = f"{self.urls['api']}/v1/trails"
        self._http.get(address, params={"limit": "5"}, headers=self._headers).raise_for_status()


@contextmanager
def demo(folder: Path, more: str, clock: str) -> Iterator[Demo]:
    """The demo in this folder; `more` is put at the end of its configuration, `clock` into ``[collector.clock]`` of the sidecar apart.

    Everything is stopped at the end.
    """
    lines = CONFIG.read_text(encoding="utf-8").splitlines(keepends=True)
    common = "".join(line for line in lines if not line.startswith("[sidecars."))
    fixed = _FIXED.format(name=APART, http=free_port(), forward=free_port(), clock=clock)
    (folder / "apart.toml").write_text(common + fixed + more)
    others = "".join(f"[sidecars.{name}]\n" for name in SERVICES if name != APART)
    config = common + others + more
    (folder / "tally.toml").write_text(config)  # a token is added before anything runs
    token = auditor_token(folder)
    with ExitStack() as ends:
        up = ends.enter_context(supervised(folder, config))
        apart = Sidecar(folder)
        ends.callback(apart.stop)
        addresses = apart.start()
        sidecars = up.addresses | {f"collector-{APART}": addresses}
        up.urls[f"collector-{APART}"] = addresses["http"]
        here = Demo(folder, up, token, apart=apart, gateway=start_services(ends, sidecars))
        ends.callback(here.close)
        yield here
