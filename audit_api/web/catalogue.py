"""All text of the pages, by key, from one file: ``text/en.toml``. A language is another such file."""

import tomllib
from collections.abc import Mapping
from importlib.resources import files

__all__ = ["Catalogue", "english"]


class Catalogue:
    """Texts by key (``search.title``). A text may hold ``{name}``; where ``n`` is given and is 1, ``<key>_one`` is preferred."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = dict(texts)

    def __call__(self, key: str, **values: object) -> str:
        """The text of this key; raises KeyError when there is none, or a value is missing."""
        if values.get("n") == 1 and f"{key}_one" in self.texts:
            key = f"{key}_one"
        return self.texts[key].format(**values) if values else self.texts[key]

    def known(self, key: str, otherwise: str) -> str:
        """The text of a key that may be of a word from outside, such as a status; else that word as it stands."""
        return self.texts.get(key, otherwise)

    def below(self, prefix: str) -> dict[str, str]:
        """All texts whose keys begin with ``prefix.``, by the rest of the key: for the scripts of the page."""
        return {key[len(prefix) + 1 :]: text for key, text in self.texts.items() if key.startswith(f"{prefix}.")}


def english() -> Catalogue:
    """The catalogue that there is."""
    source = files("audit_api.web").joinpath("text", "en.toml").read_text(encoding="utf-8")
    return Catalogue(
        {f"{part}.{key}": text for part, texts in tomllib.loads(source).items() for key, text in texts.items()}
    )
