"""The offline surface over the canary executor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from engine.canary import CanaryExecutor, oracle_hidden
from headrace.engine.engine import Engine
from headrace.engine.llm import LLM
from headrace.spec.errors import ContextExceeded
from headrace.spec.sampling import Sampling, Stop


@pytest.fixture
def llm() -> Iterator[LLM]:
    llm = object.__new__(LLM)  # without a model file
    llm.engine = Engine(CanaryExecutor(32, context=64))  # type: ignore[arg-type]
    with llm:
        yield llm
        llm.engine.check()
        assert llm.engine.stats()["open_sequences"] == 0


def test_n_samples_differ_and_repeat_with_the_seed(llm: LLM) -> None:
    how = {"sampling": Sampling(temperature=1.5), "stop": Stop(tokens=12, ignore_eos=True), "n": 4, "seed": 5}
    (first,), (second,) = llm.generate([3, 4, 5], **how), llm.generate([3, 4, 5], **how)
    drawn = [tuple(step.token_ids) for step in first.steps]
    assert len(set(drawn)) == 4 and first.token_ids == list(drawn[0]) and first.prompt_tokens == 3
    assert drawn == [tuple(step.token_ids) for step in second.steps]


def test_a_stream_that_is_left_early_frees_its_sequence(llm: LLM) -> None:
    stream = llm.stream([3, 4, 5], stop=Stop(tokens=40, ignore_eos=True))
    next(stream)
    stream.close()


def test_embeddings_are_normalised_means(llm: LLM) -> None:
    (vector,) = llm.embed([[3, 4, 5]])
    mean = np.mean([oracle_hidden([3, 4, 5][: i + 1]) for i in range(3)], axis=0)
    assert np.allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("call", ["generate", "embed"])
def test_a_refused_prompt_leaves_nothing_open(llm: LLM, call: str) -> None:
    with pytest.raises(ContextExceeded):
        getattr(llm, call)([[1, 2], [1] * 65])
