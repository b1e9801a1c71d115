"""The boards, one module each: what each shows, and what its panels ask."""

from dashboards.board import Board
from dashboards.boards import audit, fraud, overview, pipeline, service, transactions

__all__ = ["boards"]


def boards() -> tuple[Board, ...]:
    """All of them, in the order in which they are shown."""
    return (overview.board(), transactions.board(), service.board(), pipeline.board(), audit.board(), fraud.board())
