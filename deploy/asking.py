"""What the reading commands read: the ledger's files, or an audit API that was named. One interface for both."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Union

import click

from deploy.apiclient import api_options, remote
from deploy.session import Session

if TYPE_CHECKING:
    from deploy.reading import Ledger
    from deploy.recording import Record
    from deploy.remote import RemoteLedger

__all__ = ["Asked", "asked_ledger", "asks"]

Asked = dict[str, str | None]
"""The options that say what is read, as the command line gave them."""


def asks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the options that say what is read; it gets them as `source`."""

    def with_source(*arguments: Any, **options: Any) -> Any:
        source = {name: options.pop(name) for name in ("api", "token_file", "ca", "purpose", "log_key")}
        return command(*arguments, source=source, **options)

    with_source.__doc__ = command.__doc__
    with_source.__name__ = command.__name__
    if hasattr(command, "__click_params__"):
        with_source.__click_params__ = command.__click_params__  # type: ignore[attr-defined]  # click's own mark
    key = click.option(
        "--log-key",
        envvar="TALLY_LOG_KEY",
        metavar="KEY|FILE",
        help="With --api: the ledger's public key (.vkey), from a source that you trust ($TALLY_LOG_KEY).",
    )
    return api_options(key(with_source))


@contextmanager
def asked_ledger(session: Session, source: Asked) -> Iterator[tuple[Union["Ledger", "RemoteLedger"], "Record"]]:
    """The ledger that is read, and what puts on record that it is: of an API that is its own business.

    Raises:
        Failure: the options do not go together.
        ConfigError, NotFound: as `deploy.reading.open_ledger`.
    """
    api = remote(api=source["api"], token_file=source["token_file"], ca=source["ca"], purpose=source["purpose"])
    if api is not None:
        from deploy.keys import read_verifier
        from deploy.remote import RemoteLedger, no_record

        key = read_verifier(source["log_key"]) if source["log_key"] else None
        yield RemoteLedger(api=api, key=key, flows=session.config.correlator.flows), no_record
        return
    from deploy.reading import open_ledger
    from deploy.recording import recorded

    with open_ledger(session.config) as ledger, recorded(session) as record:
        yield ledger, record
