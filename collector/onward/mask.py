"""What may not go on in names and attributes of metrics is masked here, as in events: the `Mask`."""

from typing import Any

import msgspec

from collector.memo import Memo
from collector.protect import Protector
from collector.receive.otlp_events import PROTOBUF

__all__ = ["Mask"]


class Mask:
    """What a `Protector` makes of protobuf's texts and attributes, in place. Both methods raise `TallyError` where they cannot be checked.

    Args:
        protector: None: nothing is masked.
    """

    __slots__ = ("_texts", "protector")

    def __init__(self, protector: Protector | None) -> None:
        self.protector = protector
        # the same few come with every request; what is masked in them follows from them alone
        self._texts: Memo[str, str] = Memo(protector.text) if protector is not None else Memo(lambda text: text)

    def texts(self, owner: Any, *names: str) -> None:
        """Mask these fields of a message, which are texts."""
        for name in names:
            text = getattr(owner, name)
            if text and (masked := self._texts[text]) != text:
                setattr(owner, name, masked)

    def attributes(self, pairs: Any, where: str) -> bool:
        """Mask attributes that stand at `where` (``attributes``, ``resource``, ``scope.attributes``); says whether anything changed.

        Of a key that stands twice (OTLP forbids it, at any depth) the last one stands, as in events: what was not looked at does not go on.
        """
        if self.protector is None or not pairs:
            return False
        last = {pair.key: pair for pair in pairs}
        plain = {key: PROTOBUF.value_of(pair.value) for key, pair in last.items()}
        masked, _ = self.protector.protect(plain, path=where)
        whole = {key for key, pair in last.items() if _each_once(pair.value)}
        if masked is plain and len(pairs) == len(last) == len(whole):
            return False
        before = {key: last[key].value.SerializeToString() for key in whole}
        del pairs[:]
        for key, value in masked.items():
            pair = pairs.add(key=key)
            if key in before and value is plain[key]:
                pair.value.ParseFromString(before[key])
            else:
                pair.value.string_value = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return True


def _each_once(value: Any) -> bool:
    """Whether each key in an AnyValue stands there once, at any depth: whether its plain value says all of it."""
    which = value.WhichOneof("value")
    if which == "array_value":
        return all(map(_each_once, value.array_value.values))
    if which == "kvlist_value":
        pairs = value.kvlist_value.values
        return len({pair.key for pair in pairs}) == len(pairs) and all(_each_once(pair.value) for pair in pairs)
    return True
