"""The errors of this package that callers act on."""


class VerificationError(Exception):
    """Bytes from outside are not what they should be: malformed, changed, or not signed by the key that was given.

    The only error that a parser or a check of this package may raise. The message says what is wrong and where.
    """
