"""What the API needs beside the ledger: the identity provider, the Redis that limits are counted in, and room for exports."""

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from audit_api.redis_settings import RedisSettings
from collector.clienttls import client_tls
from collector.errors import Overloaded, TallyError
from deploy.config import Config
from deploy.examining import Chart
from deploy.examining.certificates import unusable_file
from deploy.examining.folder import bytes_below
from deploy.places import Places
from deploy.wording import size_in_words

if TYPE_CHECKING:
    from audit_api.identity.oidc.issuer import Issuer
    from audit_api.identity.oidc.settings import OidcSettings

__all__ = ["OLDEST_REDIS", "examine_exports", "examine_provider", "examine_redis"]

OLDEST_REDIS = (5, 0)
"""The first that passes on what a script did, and not the script, so that one may ask for the time."""

_EXPORTS = "exports"


def examine_exports(config: Config, places: Places) -> Chart:
    """Can the API keep export jobs, and is there room for as many bytes as they may have?"""
    chart = Chart(_EXPORTS)
    folders = [path for path in sorted(places.root.glob(f"{places.exports.name}*")) if path.is_dir()]
    for folder in folders:
        mode = folder.stat().st_mode & 0o777
        if mode & 0o077:
            chart.warn(
                folder.name,
                f"{folder} holds what trails hold, and is open to others ({mode:04o})",
                f"chmod 700 {folder}",
            )
        elif not os.access(folder, os.W_OK | os.X_OK):
            chart.fail(folder.name, f"{folder} cannot be written to", "run as the user that runs the processes")
        else:
            chart.ok(folder.name, f"{folder} is closed to others")
    if not folders:
        chart.ok("folder", f"{places.exports} is made at the API's start")
    most = config.audit_api.export_disk_bytes
    base = next((path for path in (places.root, *places.root.parents) if path.is_dir()), Path("/"))
    held = sum(bytes_below(folder) for folder in folders)
    judge_export_room(chart, free_bytes=shutil.disk_usage(base).free, held_bytes=held, most_bytes=most)
    return chart


def judge_export_room(chart: Chart, *, free_bytes: int, held_bytes: int, most_bytes: int) -> None:
    """Can export files grow to what they may have, `most_bytes`, from what they have, and leave the disk to the spools?"""
    more = max(most_bytes - held_bytes, 0)
    if more > free_bytes:
        chart.warn(
            "disk for exports",
            f"{size_in_words(free_bytes)} free, and exports may take {size_in_words(more)} more: they could fill the disk that spools are on",
            f"[audit_api] export_disk_bytes = {max(held_bytes + free_bytes // 2, 1_000_000)}",
        )
    else:
        chart.ok("disk for exports", f"{size_in_words(free_bytes)} free; exports may take {size_in_words(more)} of it")


# ------------------------------------------------------------------------------------------------------------- provider


def examine_provider(settings: "OidcSettings") -> Chart:
    """Does the identity provider answer, is it the one that is meant, and has it keys that its tokens may be checked with?"""
    chart = Chart("identity provider")
    try:
        asyncio.run(_provider(chart, settings))
    except ModuleNotFoundError as error:
        chart.fail("library", f"[audit_api.oidc] needs {error.name}", "pip install 'tallystick[oidc]'")
    return chart


async def _provider(chart: Chart, settings: "OidcSettings") -> None:
    from audit_api.identity.oidc.issuer import Issuer

    try:
        client_tls(settings.ca_file)
    except OSError as error:
        chart.fail("discovery", f"{settings.issuer} is not asked: {unusable_file(error)}", "[audit_api.oidc] ca_file")
        return
    issuer = Issuer(settings, monotonic=time.monotonic)
    try:
        try:
            await issuer.metadata()
        except Overloaded as error:
            chart.fail(
                "discovery",
                f"{settings.issuer}: {error}",
                f"curl {settings.issuer.rstrip('/')}/.well-known/openid-configuration    # from this machine; [audit_api.oidc] ca_file?",
            )
            return
        except TallyError as error:
            chart.fail(
                "discovery",
                f"{settings.issuer}: {error}",
                "[audit_api.oidc] issuer must be letter for letter what the provider's document says, a slash at its end too",
            )
            return
        chart.ok("discovery", f"{settings.issuer} answers, and calls itself so")
        await _keys(chart, issuer, settings)
        for name in _endpoints(settings):
            try:
                await issuer.endpoint(name)
            except TallyError as error:
                chart.fail(name, str(error), _WITHOUT[name])
    finally:
        await issuer.close()


async def _keys(chart: Chart, issuer: "Issuer", settings: "OidcSettings") -> None:
    usable = set[str]()
    try:
        for algorithm in settings.algorithms:
            if await issuer.keys(kid=None, algorithm=algorithm):
                usable.add(algorithm)
    except TallyError as error:
        chart.fail("keys", str(error), "without keys no token of the provider is taken")
        return
    if usable:
        chart.ok("keys", f"for {', '.join(sorted(usable))}")
    else:
        chart.fail(
            "keys",
            f"the provider has no signing key for any of {', '.join(settings.algorithms)}",
            "[audit_api.oidc] algorithms must name what the provider signs with",
        )


_WITHOUT = {
    "authorization_endpoint": "[audit_api.oidc] client_id without it: browsers cannot log in there",
    "token_endpoint": "[audit_api.oidc] client_id and device_client_id without it: nobody can log in there",
    "introspection_endpoint": "[audit_api.oidc] introspection = false",
    "device_authorization_endpoint": "[audit_api.oidc] device_client_id without it: tally login does not work",
}


def _endpoints(settings: "OidcSettings") -> list[str]:
    """Those that the settings rely on."""
    names = []
    if settings.introspection:
        names.append("introspection_endpoint")
    elif settings.client_id:
        names += ["authorization_endpoint", "token_endpoint"]
    if settings.device_client_id:
        names.append("device_authorization_endpoint")
    return names


# ---------------------------------------------------------------------------------------------------------------- Redis


def examine_redis(settings: RedisSettings) -> Chart:
    """Does the Redis answer, let us in, and run our scripts? Nothing is left there."""
    chart = Chart("limits")
    try:
        asyncio.run(_redis(chart, settings))
    except ModuleNotFoundError as error:
        chart.fail("library", f"[audit_api.redis] needs {error.name}", "pip install 'tallystick[redis]'")
    return chart


async def _redis(chart: Chart, settings: RedisSettings) -> None:
    from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

    from audit_api.redis_limits import open_redis, try_scripts

    own = "meanwhile each API process counts by itself"
    try:
        client_tls(settings.ca_file, settings.client_certificate, settings.client_key)
    except OSError as error:
        chart.fail(
            "Redis",
            f"{settings.url} is not asked: {unusable_file(error)}; {own}",
            "[audit_api.redis] ca_file, client_certificate, client_key",
        )
        return
    client = open_redis(settings)
    try:
        await try_scripts(client, settings.prefix)
        version = str((await client.info("server")).get("redis_version", ""))
    except AuthenticationError as error:
        chart.fail(
            "Redis", f"{settings.url} does not let us in: {error}; {own}", "[audit_api.redis] user, password_file"
        )
    except NoPermissionError as error:
        chart.fail(
            "Redis",
            f"{settings.url}: {error}; {own}",
            f"ACL SETUSER … ~{settings.prefix}:* +@hash +@scripting +@keyspace +time +info +ping",
        )
    except (RedisError, OSError, ValueError) as error:
        chart.fail(
            "Redis",
            f"{settings.url} does not answer within {settings.timeout_seconds:g} s: {type(error).__name__}: {error}; {own}",
            "[audit_api.redis] url, ca_file, timeout_seconds",
        )
    else:
        judge_redis(chart, settings.url, version)
    finally:
        await client.aclose()


def judge_redis(chart: Chart, url: str, version: str) -> None:
    """Is it a Redis that does what we need?"""
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        chart.unknown("Redis", f"{url} lets us in; {version!r} is no version that can be read")
    elif (int(parts[0]), int(parts[1])) < OLDEST_REDIS:
        chart.fail(
            "Redis", f"{url} is Redis {version}", f"Redis {OLDEST_REDIS[0]}.{OLDEST_REDIS[1]} or newer is needed"
        )
    else:
        chart.ok("Redis", f"{url} lets us in and runs our scripts (Redis {version})")
