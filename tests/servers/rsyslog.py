"""A real rsyslog on 127.0.0.1 that takes syslog over TLS (RFC 5425) and writes each message as a line of JSON; stopped by its process id."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from tests.servers.certificates import Authority
from tests.servers.kafka import free_ports
from tests.support.need import need

_START_SECONDS = 60.0

_CONFIG = """
global(
  workDirectory="{folder}"
  maxMessageSize="64k"
  parser.escapeControlCharactersOnReceive="off"
  defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile="{ca}"
  defaultNetstreamDriverCertFile="{certificate}"
  defaultNetstreamDriverKeyFile="{key}"
)
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="{authentication}")
input(type="imtcp" port="{port}" address="127.0.0.1")
template(name="line" type="list" option.jsonf="on") {{
  property(outname="priority" name="pri" format="jsonf")
  property(outname="time" name="timestamp" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="message_id" name="msgid" format="jsonf")
  property(outname="structured" name="structured-data" format="jsonf")
  property(outname="text" name="msg" format="jsonf")
}}
action(type="omfile" file="{folder}/messages" template="line" asyncWriting="off" flushOnTXEnd="on")
"""


def need_rsyslog_tls() -> str:
    """The program; skips the test (fails it in CI) where it cannot speak TLS."""
    program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
    driver = [path for path in ("lib", "lib64", "lib/*") if any(Path("/usr").glob(f"{path}/rsyslog/lmnsd_ossl.so"))]
    need(program and driver, "rsyslogd with TLS: apt-get install rsyslog rsyslog-openssl")
    assert program is not None
    return program


class Rsyslog:
    """One rsyslogd with a folder of its own. `clients`: whether it wants a certificate of `authority`."""

    def __init__(self, *, clients: bool = False) -> None:
        self._program = need_rsyslog_tls()
        self.folder = Path(tempfile.mkdtemp(prefix="rsyslog-"))
        self.authority = Authority(self.folder / "tls")
        certificate, key = self.authority.issue("rsyslog")
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._config = self.folder / "rsyslog.conf"
        self._config.write_text(
            _CONFIG.format(
                folder=self.folder,
                ca=self.authority.ca,
                certificate=certificate,
                key=key,
                port=self.port,
                authentication="x509/certvalid" if clients else "anon",
            )
        )

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        log = (self.folder / "stderr").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self._program, "-n", "-f", str(self._config), "-i", str(self.folder / "pid")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                said = (self.folder / "stderr").read_text(errors="replace")[-2_000:]
                assert self._process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.05)  # there is nothing to await: it says nothing when it is ready

    def messages(self) -> list[dict[str, Any]]:
        """What it has written so far."""
        try:
            lines = (self.folder / "messages").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        read = [json.loads(line) for line in lines if line.endswith("}")]
        return [one for one in read if one["app"] == "tallystick"]  # it writes of itself, too

    def until(self, count: int, seconds: float = 90.0) -> list[dict[str, Any]]:
        """The messages, as soon as they are so many."""
        deadline = time.monotonic() + seconds
        while len(found := self.messages()) < count:
            assert time.monotonic() < deadline, (len(found), (self.folder / "stderr").read_text()[-2_000:])
            time.sleep(0.05)  # another process writes the file
        return found

    def stop(self) -> None:
        """SIGTERM: it writes what it has."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=30)
            self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
