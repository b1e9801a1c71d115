"""What may not be written? Card numbers, credentials and declared fields, masked before the first byte reaches a disk.

Owns the noun `Protector`: an event's fields in, the same fields out with card numbers masked beside a keyed token that
still joins. It stands between the receivers and the spool, and before the dead letters. It fails closed: content that
cannot be checked is not written (`ProtectError`). `cardnumber` says which digits are a card number, `classify` where in a text one stands, `escapes` how what stands in it
may be written, `fields` which names are declared secret, `redact` puts masks in their place, `keys` holds the token key.
"""

from collector.protect.redact import ProtectError, Protector

__all__ = ["ProtectError", "Protector"]
