"""A collector's settings in the whole configuration: which they are, and what a running one takes when it is read again."""

from collector.reload import differences, refuse_fixed
from collector.settings import CollectorSettings
from deploy.config import Config, ConfigError

__all__ = ["settings_again", "settings_of"]

_FIXED = frozenset({"data", "ledger"})
_STORE = frozenset({"store"})


def settings_of(config: Config, name: str | None) -> CollectorSettings:
    """The settings of the collector called `name`; None: of the only one. Raises `ConfigError`."""
    if name is None:
        if config.sidecars:
            raise ConfigError(f"there are several sidecars: say which with --name ({', '.join(config.sidecars)})")
        return config.collector
    if name in config.sidecars:
        return config.sidecars[name]
    if name == config.collector.name and not config.sidecars:
        return config.collector
    known = ", ".join(config.sidecars) or config.collector.name
    raise ConfigError(f"there is no collector called {name}; there is: {known}")


def settings_again(old: Config, new: Config, name: str | None) -> CollectorSettings:
    """The settings of the collector called `name` in `new` (None: of the only one).

    Raises:
        Malformed: data folder, ledger or store are others than in `old`, with which the process runs.
        ConfigError: there is no such collector in it.
    """
    settings = settings_of(new, name)
    relays = bool(settings_of(old, name).relay.host)  # then nothing goes to the store from here
    refuse_fixed(list(differences(old, new)), _FIXED if relays else _FIXED | _STORE)
    return settings
