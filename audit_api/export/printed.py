"""A report, printed where the extra ``pdf`` is installed."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from audit_api.export.formats import FormatUnavailable
from audit_api.export.report import report_of
from correlator.bundle import Contents
from correlator.note import Verifier

__all__ = ["report_pdf"]


def report_pdf(contents: Contents, key: Verifier, *, fonts: Sequence[Path] = ()) -> bytes:
    """The report as PDF (`audit_api.export.pdf`).

    Raises:
        VerificationError, TooLarge: as `report_of`.
        FormatUnavailable: the extra ``pdf`` is not installed.
    """
    try:
        pdf = importlib.import_module("audit_api.export.pdf")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("fpdf", "segno", "uharfbuzz", "fontpkg_noto_sans"):
            raise
        raise FormatUnavailable("pdf needs the extra pdf: pip install 'tallystick[pdf]'") from error
    made: bytes = pdf.render_report(report_of(contents, key), fonts=fonts)
    return made
