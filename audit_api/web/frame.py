"""Templates to pages: what holds for each of them. Everything is escaped, and what comes from outside is made harmless.

A page loads nothing from elsewhere and holds no script and no style of its own: `POLICY` forbids both, so that a log line that
found its way into the markup could do nothing.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from audit_api.web.catalogue import Catalogue, english

__all__ = ["HEADERS", "POLICY", "PREFIX", "STATIC_TYPES", "Frame", "plain"]

PREFIX = "/desk"
"""Where all pages are. One path, so that a proxy can let it be told apart from the API's."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The pages' Content-Security-Policy, in the place of the API's."""

HEADERS: Mapping[str, str] = {"Content-Security-Policy": POLICY, "Cross-Origin-Opener-Policy": "same-origin"}

STATIC_TYPES = {
    "desk.css": "text/css; charset=utf-8",
    "desk.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "verify.js": "text/javascript; charset=utf-8",
    "tally.svg": "image/svg+xml",
}
"""The assets that there are, and what each is. No other file is ever served."""

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(value: Any) -> Any:
    """Text without characters that steer the text around them: controls and bidirectional marks are spelled out."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", value)


class Frame:
    """Renders templates. Reads its files once, when it is made."""

    def __init__(self) -> None:
        self.text: Catalogue = english()
        folder = files("audit_api.web").joinpath("static")
        self.assets = {name: folder.joinpath(name).read_bytes() for name in STATIC_TYPES}
        digest = sha256(b"".join(sha256(data).digest() for data in self.assets.values())).hexdigest()
        self.release = digest[:12]
        """Names this state of the assets: part of their addresses, so that they may be kept for ever."""
        self._environment = Environment(
            loader=PackageLoader("audit_api.web"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=plain,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,  # a template is not looked at again at each page
        )
        self._environment.globals |= {
            "t": self.text,
            "known": self.text.known,
            "base": PREFIX,
            "static": f"{PREFIX}/static/{self.release}",
        }

    def render(self, template: str, **values: Any) -> bytes:
        """A page, UTF-8."""
        return self._environment.get_template(template).render(**values).encode("utf-8")
