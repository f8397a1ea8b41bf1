"""Tests of the budget for chunks on their way to clients."""

from contextlib import ExitStack

from storage.piece_budget import LARGE_PIECE, SMALL_PIECE, PieceBudget


def test_pieces_are_large_while_the_budget_lasts_and_small_beyond() -> None:
    budget = PieceBudget(2 * LARGE_PIECE)
    with ExitStack() as stack:
        sizes = [stack.enter_context(budget.take()) for _ in range(4)]
        assert sizes == [LARGE_PIECE, LARGE_PIECE, SMALL_PIECE, SMALL_PIECE]
    with budget.take() as size:
        assert size == LARGE_PIECE
