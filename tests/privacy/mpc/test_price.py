"""The formulas of cost, against figures worked out by hand from the papers' protocols."""

from __future__ import annotations

import pytest

from headrace.privacy.mpc.price import PROTOCOLS, Cost, block, forward, largest, share_bytes, total
from headrace.privacy.mpc.transformer import Shape

ABY3, SEMI2K = PROTOCOLS["aby3"], PROTOCOLS["semi2k"]
SHAPE = Shape(8, 16, 2, 1, 8, 32, 64, 3, 10_000.0, 1e-5)


def test_replicated_shares() -> None:
    assert ABY3.product(5) == Cost(1, 3, 3 * 8 * 5), "each of three parties sends one element"
    assert ABY3.matmul(2, 100, 3) == ABY3.multiply(6), "a product of matrices costs its result, whatever is between"
    assert ABY3.sign(1) == Cost(8, 24, 3 * (8 + 8 + 2 * (4 + 2 + 1 + 1 + 1 + 1)))
    assert ABY3.from_bits(1, 1) == Cost(2, 4, 32) and ABY3.from_bits(1, 36).rounds == 10


def test_additive_shares() -> None:
    assert SEMI2K.product(5) == Cost(1, 2, 2 * 2 * 8 * 5), "two parties open both masked factors"
    assert SEMI2K.matrix_product(2, 100, 3) == Cost(1, 2, 2 * 8 * 500), "here it costs its factors"
    assert SEMI2K.sign(1).rounds == 7 and SEMI2K.square(3).bytes * 2 == SEMI2K.product(3).bytes


def test_a_tournament_plays_one_game_less_than_it_has_players() -> None:
    game, start = (ABY3.compare(1) + ABY3.select(1)).bytes, ABY3.share_public(1).bytes
    for players in (1, 2, 3, 7, 8, 16, 100):
        assert largest(ABY3, 5, players).bytes == 5 * (players - 1) * game + start
    assert largest(ABY3, 5, 16).rounds == 1 + 4 * (8 + 2)


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3) * 3 == total([Cost(1, 2, 3)] * 3) == Cost(3, 6, 9)
    assert [share_bytes(bits) for bits in (1, 8, 9, 16, 32, 33, 64)] == [1, 1, 2, 2, 4, 8, 8]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_decoder_costs_its_parts(protocol: str) -> None:
    one = PROTOCOLS[protocol]
    whole, layer = forward(one, SHAPE), total(block(one, SHAPE).values())
    ends = total(whole[name] for name in ("embedding", "final norm", "head"))
    assert total(whole.values()) == layer * SHAPE.layers + ends
    assert total(forward(one, SHAPE, rows=1).values()).bytes < total(whole.values()).bytes
