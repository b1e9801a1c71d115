"""The tables of the trail index in SQLite, and the number of their format: an index of another one is made anew.

Every side table's key ends with the trail's first leaf, so that what is found in it is in the order of the trails. `names` holds the
names of services, keys and events, and `words` what
those of services and events can be found by.
"""

__all__ = ["SCHEMA", "SCHEMA_VERSION", "TABLES"]

SCHEMA_VERSION = 3
SCHEMA = """
CREATE TABLE trails (
    first_leaf INTEGER PRIMARY KEY,
    trail TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    kind INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    last_leaf INTEGER NOT NULL,
    first_time TEXT NOT NULL,
    last_time TEXT NOT NULL,
    status INTEGER NOT NULL,
    links INTEGER NOT NULL,
    services TEXT NOT NULL,
    events TEXT NOT NULL,
    keys TEXT NOT NULL,
    amounts TEXT NOT NULL
);
CREATE INDEX trails_by_kind ON trails (kind);
CREATE INDEX trails_by_status ON trails (status) WHERE status > 0;
CREATE INDEX trails_by_tenant ON trails (tenant) WHERE tenant <> '';
CREATE TABLE runs (
    first_leaf INTEGER NOT NULL,
    position INTEGER NOT NULL,
    leaves BLOB NOT NULL,
    PRIMARY KEY (first_leaf, position)
) WITHOUT ROWID;
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE words (
    word TEXT NOT NULL,
    name INTEGER NOT NULL,
    PRIMARY KEY (word, name)
) WITHOUT ROWID;
CREATE TABLE texts (
    text TEXT NOT NULL,
    first_leaf INTEGER NOT NULL,
    PRIMARY KEY (text, first_leaf)
) WITHOUT ROWID;
CREATE TABLE events (
    event INTEGER NOT NULL,
    first_leaf INTEGER NOT NULL,
    PRIMARY KEY (event, first_leaf)
) WITHOUT ROWID;
CREATE TABLE services (
    service INTEGER NOT NULL,
    first_leaf INTEGER NOT NULL,
    PRIMARY KEY (service, first_leaf)
) WITHOUT ROWID;
CREATE TABLE keys (
    name INTEGER NOT NULL,
    value TEXT NOT NULL,
    first_leaf INTEGER NOT NULL,
    PRIMARY KEY (name, value, first_leaf)
) WITHOUT ROWID;
CREATE TABLE amounts (
    first_leaf INTEGER NOT NULL,
    currency TEXT NOT NULL,
    least TEXT NOT NULL,
    most TEXT NOT NULL,
    PRIMARY KEY (first_leaf, currency)
) WITHOUT ROWID;
CREATE INDEX amounts_by_most ON amounts (currency, most, least);
CREATE TABLE links (
    first_leaf INTEGER NOT NULL,
    trail TEXT NOT NULL,
    PRIMARY KEY (first_leaf, trail)
) WITHOUT ROWID;
CREATE TABLE progress (size INTEGER NOT NULL);
INSERT INTO progress VALUES (0);
"""
TABLES = ("trails", "runs", "names", "words", "texts", "services", "events", "keys", "amounts", "links")
"""All but `progress`, which has one row always."""
