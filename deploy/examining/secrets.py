"""Are the secrets on disk, readable by their owner alone, and the right ones: keys, passwords, the API's tokens?"""

import os
import stat
import time
from pathlib import Path

from audit_api.auth import TokensError, hash_token
from collector.errors import TallyError
from collector.event import parse_time
from collector.protect.keys import load_token_key
from deploy.config import Config, ConfigError
from deploy.examining import Chart
from deploy.examining.settings import collectors_of
from deploy.keys import log_verifier, read_signer
from deploy.places import Places
from deploy.tokens import read_tokens
from deploy.wording import count

__all__ = ["examine_secrets"]

_WAYS = ("forward", "http", "grpc", "elasticsearch", "beats", "syslog", "relay")
_BROKERS = ("kafka", "amqp", "pulsar")
_SECRETS = ("tls_key", "shared_key_file", "password_file", "token_file")


def examine_secrets(config: Config, places: Places, *, now_ns: int | None = None) -> Chart:
    """Look at the keys folder, the files that the configuration names, and the tokens. Nothing of what is in them is told.

    Args:
        config: names the ledger, and files.
        places: where keys and tokens are.
        now_ns: Unix time in nanoseconds, by which tokens expire; None: the system's.
    """
    chart = Chart("keys")
    _folder(chart, places)
    _log_key(chart, config, places)
    _seeds(chart, places)
    _named_files(chart, config)
    _first_token(chart, places)
    _tokens(chart, places, time.time_ns() if now_ns is None else now_ns)
    return chart


def _folder(chart: Chart, places: Places) -> None:
    try:
        mode = places.keys.stat().st_mode & 0o777
    except FileNotFoundError:
        chart.ok("folder", f"{places.keys} is made at the first start")
    except OSError as error:
        chart.fail("folder", f"{places.keys}: {error.strerror}", "run as the user that runs the processes")
    else:
        if mode & 0o077:
            chart.warn("folder", f"{places.keys} is open to others (mode {mode:04o})", f"chmod 700 {places.keys}")
        else:
            chart.ok("folder", f"{places.keys} is closed to others")


def _log_key(chart: Chart, config: Config, places: Places) -> None:
    if not places.log_key.exists():
        if places.log_vkey.exists():
            chart.ok("log.key", "only the public half is here: this machine reads the log, and cannot write it")
        elif places.log.is_dir() and any(places.log.iterdir()):
            chart.fail(
                "log.key",
                f"{places.log_key} is missing, and there is a log: only its own key can go on signing it",
                f"bring it back from its copy, mode 0600: {places.log_key}",
            )
        else:
            chart.ok("log.key", "made at the first start, unless `tally keygen` makes it before")
        return
    try:
        signer = read_signer(places, ledger=config.ledger)
    except ConfigError as error:
        closing = _closing(places.log_key)
        if os.access(places.log_key, os.R_OK):
            chart.fail("log.key", str(error), *closing, f"{'else ' if closing else ''}bring the key back from its copy")
        else:
            chart.fail("log.key", str(error), "run as the user that runs the processes")
        return
    try:
        public = log_verifier(places)
    except ConfigError as error:
        chart.fail("log.vkey", str(error), f"echo '{signer.verifier.vkey}' > {places.log_vkey}")
        return
    if public.vkey != signer.verifier.vkey:
        chart.fail(
            "log.vkey",
            f"{places.log_vkey} is not the public half of {places.log_key}: readers would refuse what this machine signs",
            f"which of them signed the log? `tally verify` tells. For the private key's: echo '{signer.verifier.vkey}' > {places.log_vkey}",
        )
        return
    chart.ok("log.key", f"signs for {signer.name}, fingerprint {public.fingerprint}; keep a copy of it safe")


def _seeds(chart: Chart, places: Places) -> None:
    paths = [path for path in sorted(places.keys.glob("*.key")) if path != places.log_key]
    wrong = False
    for path in paths:
        try:
            load_token_key(path)
        except (TallyError, OSError) as error:
            wrong = True
            chart.fail(path.name, str(error), *(_closing(path) or ("bring it back from its copy",)))
    if paths and not wrong:
        chart.ok("others", f"{count(len(paths), 'other key')} closed to others, and whole")


def _closing(path: Path) -> tuple[str, ...]:
    try:
        return (f"chmod 600 {path}",) if path.stat().st_mode & 0o077 else ()
    except OSError:
        return ()


def _named_files(chart: Chart, config: Config) -> None:
    """Secrets that the configuration names."""
    named = [
        (f"{table}.{key}", getattr(settings, key))
        for table, settings in (("store", config.store), ("index", config.index))
        for key in ("password_file", "client_key")
    ]
    for table, collector in collectors_of(config).items():
        ways = [(way, getattr(collector, way)) for way in _WAYS]
        ways += [(way, entry) for way in _BROKERS for entry in getattr(collector, way)]
        named += [(f"{table}.{way}.{key}", getattr(one, key, "")) for way, one in ways for key in _SECRETS]
        named += [
            (f"{table}.metrics_to.{key}", getattr(collector.metrics_to, key))
            for key in ("token_file", "password_file", "client_key")
        ]
    api, detector = config.audit_api, config.detector
    named += [
        ("audit_api.tls_key", api.tls_key),
        ("audit_api.oidc.client_secret_file", api.oidc.client_secret_file),
        ("audit_api.redis.password_file", api.redis.password_file),
        ("audit_api.redis.client_key", api.redis.client_key),
        ("detector.alertmanager.token_file", detector.alertmanager.token_file),
        ("detector.freeze.secret_file", detector.freeze.secret_file),
    ]
    for one in config.siem.destinations:
        for key in ("client_key", "token_file", "password_file"):
            named.append((f"siem.destinations, {one.name}: {key}", getattr(one, key, "")))
    seen = set[str]()
    for setting, name in named:
        if not name or name in seen:
            continue
        seen.add(name)
        path = Path(name)
        try:
            mode = path.stat().st_mode
            with path.open("rb") as file:
                empty = not file.readline(4_096).strip()
        except OSError as error:
            chart.fail(
                setting,
                f"{path} cannot be read: {error.strerror}",
                f"{setting} must name a file of user {os.geteuid()}",
            )
            continue
        if empty:
            chart.fail(setting, f"the first line of {path} is empty", f"write the secret into {path}")
        elif mode & 0o007 and stat.S_ISREG(mode):
            chart.warn(setting, f"{path} can be read by everybody (mode {mode & 0o777:04o})", f"chmod 600 {path}")
        else:
            chart.ok(setting, f"{path} is closed to others")


def _first_token(chart: Chart, places: Places) -> None:
    """The one that stands in a file, for who has just begun."""
    file = places.first_token
    try:
        mode = file.stat().st_mode & 0o777
        token = file.read_text(encoding="ascii").strip()
        known = any(record.sha256 == hash_token(token) for record in read_tokens(places.tokens))
    except FileNotFoundError:
        return
    except (OSError, ValueError, TokensError) as error:
        chart.unknown(file.name, f"{file}: {error}", f"does anybody use it? if not: rm {file}")
        return
    if mode & 0o077:
        chart.fail(file.name, f"{file} is a token, and open to others (mode {mode:04o})", f"chmod 600 {file}")
    elif not known:
        chart.warn(file.name, f"{file} opens nothing any more", f"rm {file}")
    else:
        chart.ok(file.name, f"{file} is closed to others")


def _tokens(chart: Chart, places: Places, now_ns: int) -> None:
    try:
        records = read_tokens(places.tokens)
        mode = places.tokens.stat().st_mode & 0o777
    except FileNotFoundError:
        records, mode = [], 0
    except TokensError as error:
        chart.fail("tokens", str(error), f"mend {places.tokens}, or make it anew with `tally token add`")
        return
    if mode & 0o022:
        chart.fail(
            "tokens",
            f"{places.tokens} can be written by others (mode {mode:04o}): the API refuses it",
            f"chmod 600 {places.tokens}",
        )
        return
    if not records:
        chart.ok("tokens", "none yet: nobody can use the API (tally token add NAME --role auditor)")
        return
    over = [record.principal for record in records if record.expires and parse_time(record.expires) <= now_ns]
    soon = [
        record.principal
        for record in records
        if record.expires and now_ns < parse_time(record.expires) <= now_ns + 7 * 86_400 * 10**9
    ]
    left = len(records) - len(over)
    if not left:
        chart.warn("tokens", "all have expired: nobody can use the API", "tally token add NAME --role auditor")
    elif soon:
        names = ", ".join(sorted(set(soon)))
        chart.warn(
            "tokens",
            f"expire within a week: {names}",
            *(f"tally token add {name} --role …" for name in sorted(set(soon))),
        )
    else:
        expired = f", {len(over)} expired" if over else ""
        chart.ok("tokens", f"{count(left, 'token')}{expired}")
