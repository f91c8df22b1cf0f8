"""Requests that need every page there is."""

from __future__ import annotations

from engine.canary import VOCAB, CanaryExecutor, oracle_logits
from headrace.engine.engine import Engine
from headrace.engine.sampling import NoiseKey, draw
from headrace.spec.sampling import Sampling, Stop

GREEDY = Sampling(temperature=0)


def test_a_rewound_sequence_that_fills_the_store_goes_on() -> None:
    """Its last page is findable and must change: there is no fifth page to copy it to, and no need."""
    with Engine(CanaryExecutor(4)) as engine:
        tokens = [1 + n % (VOCAB - 1) for n in range(50)]
        sequence = engine.open_now(tokens, seed=1)
        mark = sequence.mark()
        sequence.append([3] * 14)
        sequence.extend(Stop(tokens=0), Sampling(prompt_logprobs=0)).result(60)
        sequence.rewind(mark)
        step = sequence.extend(Stop(tokens=14, ignore_eos=True), GREEDY).result(60)
        wanted = list(tokens)
        for _ in range(14):
            wanted.append(draw(oracle_logits(wanted), GREEDY, NoiseKey(1, (0,)), wanted, 50))
        assert step.token_ids == wanted[50:]
        engine.check()
