"""`tally keygen`: the key that signs the log."""

from pathlib import Path

import click

from deploy.session import Failure, Session, emit_json, json_option, pass_session


@click.command()
@click.option("--name", help="The ledger's name (default: `ledger` of the configuration).")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the private key; the public one goes beside it as .vkey (default: keys/log.key in the data folder).",
)
@json_option
@pass_session
def keygen(session: Session, *, name: str | None, output: Path | None, as_json: bool) -> None:
    """Make a key that signs the log: NAME.key stays secret (mode 0600), NAME.vkey is given to those who verify.

    Not needed to begin with: the first `tally up` or `tally import` makes one. A key that is there is never replaced.
    """
    from correlator.errors import VerificationError
    from correlator.note import Signer
    from deploy.keys import write_key_pair

    if output is None:
        session.places.make()
        output = session.places.log_key
    vkey = output.with_suffix(".vkey")
    try:
        signer = Signer.generate(name or session.config.ledger)
        write_key_pair(signer, output, vkey)
    except VerificationError as error:
        raise Failure(str(error), exit_code=2) from error
    except FileExistsError as error:
        raise Failure(f"{output} exists: a log that has been signed needs its key for ever") from error
    if as_json:
        emit_json({"key": str(output), "vkey": signer.verifier.vkey, "fingerprint": signer.verifier.fingerprint})
        return
    click.echo(f"{output}: the private key, mode 0600")
    click.echo(f"{vkey}: {signer.verifier.vkey}")
    click.echo(f"fingerprint {signer.verifier.fingerprint}")
