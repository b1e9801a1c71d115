"""What a writer makes of what another one left, dead or deposed: head, stagings and the tree's edge. The table is in `correlator.log`."""

from collections.abc import Sequence
from contextlib import suppress

from correlator.errors import NotFound, VerificationError
from correlator.frontier import Frontier
from correlator.head import Head, decode_staging
from correlator.merkle import leaf_hashes as hashes_of
from correlator.storage import LogStorage
from correlator.tiles import ENTRIES, WIDTH, Tile, parse_bundle

__all__ = ["drop_superseded", "load_edge", "restore"]


def drop_superseded(storage: LogStorage, objects: Sequence[tuple[Tile, bytes]]) -> None:
    """Drop again what a successor had dropped of these, and nobody syncs: torn by a power cut, it would look like a change.

    Raises:
        Overloaded, StateUnknown: from the storage.
    """
    for tile, _ in objects:
        with suppress(NotFound):
            storage.get(tile.full.path)
            storage.drop_partials(tile.full.path)


def restore(storage: LogStorage, head: Head) -> None:
    """Publish again, and durably, all that the head's stagings hold.

    Raises:
        VerificationError: a staging is missing or was changed.
        Overloaded, StateUnknown: from the storage.
    """
    restored = []
    for ref in head.stagings:
        try:
            staging = storage.read_stage(ref.name)
        except NotFound as error:
            raise VerificationError(f"staging/{ref.name} is missing, and the head names it") from error
        for tile, data in decode_staging(staging, ref):
            storage.restore(tile.path, data)
            restored.append(tile)
    for tile in restored:
        if tile.width == WIDTH:
            storage.drop_partials(tile.path)
    storage.sync()


def load_edge(storage: LogStorage, head: Head) -> tuple[Frontier, bytes]:
    """The tree's right edge and the partial bundle, checked against the head's root.

    Raises:
        VerificationError: they do not lead to it.
        Overloaded, StateUnknown: from the storage.
    """

    def read(tile: Tile) -> bytes:
        try:
            return storage.get(tile.path)
        except NotFound as error:
            raise VerificationError(f"{tile.path} is missing, and the tree of {head.size} leaves needs it") from error

    frontier = Frontier.load(head.size, read)
    if frontier.root.hex() != head.root:
        raise VerificationError(f"the partial tiles of the tree of {head.size} leaves do not lead to the head's root")
    index, width = divmod(head.size, WIDTH)
    if not width:
        return frontier, b""
    bundle = Tile(level=ENTRIES, index=index, width=width)
    tail = read(bundle)
    if b"".join(hashes_of(parse_bundle(tail, width, bundle.path))) != frontier.edges[0]:
        raise VerificationError(f"{bundle.path} does not hold the entries of the tree of {head.size} leaves")
    return frontier, tail
