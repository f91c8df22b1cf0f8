"""Every verb of a sequence, one by one, against an executor whose pages can be read."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engine.canary import VOCAB, ToyTokenizer, oracle_hidden, oracle_logits
from engine.verbs import HOT, PROMPT, WAIT, held, made, oracle, stop
from headrace.engine.engine import Engine
from headrace.engine.sampling import token_logprob
from headrace.engine.sequence import SequenceHandle
from headrace.spec.errors import (
    ContextExceeded,
    HeadraceError,
    InvalidRequest,
    Overloaded,
    PagesExhausted,
    SequenceBusy,
    SequenceClosed,
    UnsupportedModel,
)
from headrace.spec.sampling import Sampling, Stop

# -- extend --------------------------------------------------------------------------------------------


def test_extend_draws_what_plain_decoding_draws(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=3)
    expected = oracle(sequence, PROMPT, 30)
    step = sequence.extend(stop(30), HOT).result(WAIT)
    assert (step.token_ids, step.finish_reason, step.prompt_tokens) == (expected, "length", 5)
    assert sequence.tokens == PROMPT + expected and len(sequence) == 35


def test_a_drawn_seed_is_echoed_and_repeats(engine: Engine) -> None:
    first = engine.open_now(PROMPT)
    tokens = first.extend(stop(12), HOT).result(WAIT).token_ids
    second = engine.open_now(PROMPT, seed=first.seed)
    assert second.extend(stop(12), HOT).result(WAIT).token_ids == tokens
    assert engine.open_now(PROMPT).seed != first.seed


def test_extend_by_nothing_draws_nothing(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=3)
    step = sequence.extend(Stop(tokens=0), Sampling(prompt_logprobs=2)).result(WAIT)
    assert (step.token_ids, step.finish_reason, step.text) == ([], "length", "")
    assert step.prompt_logprobs is not None and len(step.prompt_logprobs) == 5
    again = sequence.extend(Stop(tokens=0)).result(WAIT)
    assert again.token_ids == [] and sequence.tokens == PROMPT


def test_stop_tokens_and_end_tokens(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=3)
    expected = oracle(sequence, PROMPT, 200)
    target = expected[4]
    step = sequence.extend(stop(200, token_ids=(target,)), HOT).result(WAIT)
    assert step.token_ids == expected[: expected.index(target) + 1] and (step.finish_reason, step.stop) == (
        "stop",
        target,
    )
    other = engine.open_now(PROMPT, seed=3)
    step = other.extend(Stop(tokens=200), HOT).result(WAIT)
    assert step.token_ids == expected[: expected.index(0) + 1] and step.stop == 0


def test_logprobs_are_the_models_own(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=3)
    step = sequence.extend(stop(6), Sampling(temperature=1.5, top_k=3, logprobs=4)).result(WAIT)
    tokens = list(PROMPT)
    assert step.logprobs is not None
    for token, found in zip(step.token_ids, step.logprobs, strict=True):
        assert found == token_logprob(oracle_logits(tokens), token, 4)
        tokens.append(token)


def expected_prompt_logprobs(tokens: list[int], top: int) -> list:
    rows = [token_logprob(oracle_logits(tokens[:i]), tokens[i], top) for i in range(1, len(tokens))]
    return [None, *rows]


@pytest.mark.parametrize("logits", [1, 3, 64])
def test_prompt_logprobs_in_chunks_and_with_a_warm_cache(logits: int) -> None:
    engine, _ = made(logits=logits, tokens=10)
    prompt = [1 + i % 20 for i in range(70)]
    with engine:
        for _ in range(2):
            with engine.open_now(prompt, seed=1) as sequence:
                step = sequence.extend(stop(3), Sampling(prompt_logprobs=2)).result(WAIT)
                assert step.prompt_logprobs == expected_prompt_logprobs(prompt, 2)
                assert step.cached_tokens == 0


def test_prompt_logprobs_of_a_preempted_request_are_whole() -> None:
    engine, _ = made(pages=5, logits=4, tokens=8, running=2)
    prompt, go = [1 + i % 20 for i in range(60)], threading.Event()
    with engine:
        entered = held(engine, go)
        blocker = engine.open_now([1]).extend(stop(1))
        assert entered.wait(WAIT)
        older, younger = engine.open_now(PROMPT, seed=1), engine.open_now(prompt, seed=2, principal="other")
        first = older.extend(stop(70), HOT)
        second = younger.extend(stop(2), Sampling(prompt_logprobs=1))
        go.set()
        blocker.result(WAIT)
        assert second.result(WAIT).prompt_logprobs == expected_prompt_logprobs(prompt, 1)
        assert first.result(WAIT).token_ids == oracle(older, PROMPT, 70)
        assert engine.stats()["preempted"] > 0


def test_cached_tokens_are_reported(engine: Engine) -> None:
    prompt = [1 + i % 20 for i in range(40)]
    cold = engine.open_now(prompt).extend(stop(1)).result(WAIT)
    warm = engine.open_now(prompt).extend(stop(1)).result(WAIT)
    foreign = engine.open_now(prompt, principal="other").extend(stop(1)).result(WAIT)
    shared = [engine.open_now(prompt, principal=p, sharing="all").extend(stop(1)).result(WAIT) for p in "xy"]
    assert [cold.cached_tokens, warm.cached_tokens, foreign.cached_tokens] == [0, 32, 0]
    assert [s.cached_tokens for s in shared] == [0, 32]


def test_text_streams_whole_characters_and_stops() -> None:
    engine, _ = made(tokenizer=ToyTokenizer())
    with engine:
        sequence = engine.open_now("abc€", seed=4)
        assert sequence.tokens == [4, 5, 6, 1, 2, 3]
        tokens = oracle(sequence, sequence.tokens, 40)
        whole = b"".join(ToyTokenizer().token_bytes(t) for t in tokens).decode(errors="replace")
        extension = sequence.extend(stop(40), HOT)
        shown = [token.text for token in extension]
        assert "".join(shown) == extension.result().text == whole.rstrip("\ufffd") or "".join(shown) == whole
        target = whole[10:12]
        other = engine.open_now("abc€", seed=4)
        step = other.extend(stop(40, text=(target,)), HOT).result(WAIT)
        assert (step.text, step.stop, step.finish_reason) == (whole[: whole.index(target)], target, "stop")
        assert step.token_ids == tokens[: len(step.token_ids)] and other.tokens == [4, 5, 6, 1, 2, 3, *step.token_ids]


def test_ids_only_without_a_tokenizer(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT)
    for call in (lambda: engine.open_now("text"), lambda: sequence.append("text"), lambda: sequence.score(["text"])):
        with pytest.raises(UnsupportedModel, match="token ids"):
            call()
    with pytest.raises(UnsupportedModel):
        sequence.extend(Stop(text=("x",)))
    assert sequence.extend(stop(1)).result(WAIT).text == ""


# -- refusals ------------------------------------------------------------------------------------------


def test_bad_requests_are_refused_at_once(engine: Engine) -> None:
    for prompt in ([], [VOCAB], [-1], [1.5], [True]):
        with pytest.raises(InvalidRequest) as caught:
            engine.open_now(prompt)
        assert caught.value.field == "prompt"
    with pytest.raises(InvalidRequest):
        engine.open_now(PROMPT, adapter="x")
    sequence = engine.open_now(PROMPT)
    for what in ("hidden:3", "hidden:", "logits", "hidden:-3", "hidden:--1"):
        with pytest.raises(InvalidRequest, match="hidden:0"):
            sequence.read(what)
    with pytest.raises(InvalidRequest, match="pool"):
        sequence.read(pool="median")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        sequence.extend(Stop(token_ids=(VOCAB,)))
    with pytest.raises(InvalidRequest):
        sequence.extend(sampling=Sampling(logit_bias={VOCAB: 1.0}))
    assert sequence.extend(stop(1)).result(WAIT).token_ids


def test_the_context_is_kept_with_both_numbers() -> None:
    engine, _ = made(context=20)
    with engine:
        with pytest.raises(ContextExceeded, match="21 tokens and the context is 20"):
            engine.open_now([1] * 21)
        sequence = engine.open_now([1] * 18, seed=1)
        with pytest.raises(ContextExceeded):
            sequence.append([2, 2, 2])
        assert sequence.tokens == [1] * 18
        with pytest.raises(ContextExceeded):
            sequence.score([[1], [2, 2, 2]])
        step = sequence.extend(stop(50), HOT).result(WAIT)
        assert (len(step.token_ids), step.finish_reason) == (2, "length")
        with pytest.raises(ContextExceeded, match="20"):
            sequence.extend()
        assert sequence.extend(Stop(tokens=0)).result(WAIT).token_ids == []
        assert len(sequence.score([[]]).result(WAIT)) == 1


def test_what_can_never_fit_says_so() -> None:
    engine, _ = made(pages=4)
    with engine:
        pinned = engine.open_now([1] * 20, pin=True)
        sequence = engine.open_now([2] * 20)
        with pytest.raises(PagesExhausted, match=r"50 tokens, 4 pages, but only 2 of 4 .*2 are pinned"):
            sequence.extend(stop(30)).result(WAIT)
        with pytest.raises(PagesExhausted, match="more than half"):
            engine.open_now([1] * 20, pin=True)
        assert len(sequence.extend(stop(12)).result(WAIT).token_ids) == 12
        pinned.drop()
        assert len(sequence.extend(stop(30)).result(WAIT).token_ids) == 30
        assert engine.stats()["open_sequences"] == 1


def test_pinned_pages_stay_when_all_others_go() -> None:
    engine, executor = made(pages=8)
    with engine:
        pinned = engine.open_now([3] * 40, seed=1, pin=True)
        pinned.extend(stop(1), HOT).result(WAIT)
        engine.open_now([4] * 70, seed=1).extend(stop(1)).result(WAIT)
        executor.batches.clear()
        pinned.extend(stop(1), HOT).result(WAIT)
        assert [len(row.tokens) for batch in executor.batches for row in batch.rows] == [1]


def test_busy_and_closed(engine: Engine) -> None:
    go = threading.Event()
    entered = held(engine, go)
    sequence = engine.open_now(PROMPT, seed=3)
    mark = sequence.mark()
    extension = sequence.extend(stop(3), HOT)
    assert entered.wait(WAIT)
    verbs = [
        lambda: sequence.extend(),
        lambda: sequence.append([1]),
        lambda: sequence.fork(2),
        lambda: sequence.mark(),
        lambda: sequence.rewind(mark),
        lambda: sequence.score([[1]]),
        lambda: sequence.read(),
    ]
    for verb in verbs:
        with pytest.raises(SequenceBusy, match="await it or cancel it"):
            verb()
    go.set()
    assert len(extension.result(WAIT).token_ids) == 3
    sequence.drop()
    sequence.drop()
    for verb in verbs:
        with pytest.raises(SequenceClosed, match="open a new one"):
            verb()


def test_more_than_the_queue_are_refused_and_commands_do_not_count(engine: Engine) -> None:
    engine, _ = made(queue=2, running=1)
    go = threading.Event()
    with engine:
        entered = held(engine, go)
        sequences = [engine.open_now([i + 1]) for i in range(6)]
        running = [sequences[0].extend(stop(1))]
        assert entered.wait(WAIT)
        for _ in range(20):
            sequences[5].append([1])
        running += [sequence.extend(stop(1)) for sequence in sequences[1:3]]
        with pytest.raises(Overloaded, match="2 requests wait") as caught:
            sequences[3].extend(stop(1))
        assert caught.value.retry_after > 0
        for refused in (lambda: sequences[3].score([[1]]), lambda: sequences[3].read()):
            with pytest.raises(Overloaded):
                refused()
        assert engine.stats()["waiting"] == 2
        go.set()
        assert all(len(e.result(WAIT).token_ids) == 1 for e in running)
        assert len(sequences[3].extend(stop(1)).result(WAIT).token_ids) == 1
        assert engine.stats()["waiting"] == 0


# -- fork, mark, rewind, append ------------------------------------------------------------------------


def test_rewind_draws_anew_and_replay_repeats(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=3)
    mark = sequence.mark()
    drawn = [sequence.extend(stop(20), HOT).result(WAIT).token_ids]
    for _ in range(3):
        sequence.rewind(mark)
        assert sequence.tokens == PROMPT
        drawn.append(sequence.extend(stop(20), HOT).result(WAIT).token_ids)
    assert len({tuple(d) for d in drawn}) == 4
    sequence.rewind(mark, replay=True)
    assert sequence.extend(stop(20), HOT).result(WAIT).token_ids == drawn[0]
    sequence.rewind(mark)
    assert tuple(sequence.extend(stop(20), HOT).result(WAIT).token_ids) not in {tuple(d) for d in drawn}


def test_replay_repeats_the_branch_of_the_mark_and_its_forks(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=3)
    sequence.rewind(sequence.mark())
    mark = sequence.mark()
    first = sequence.extend(stop(20), HOT).result(WAIT).token_ids
    kid = sequence.fork(1)[0].extend(stop(20), HOT).result(WAIT).token_ids
    sequence.rewind(mark)
    sequence.rewind(mark, replay=True)
    assert sequence.extend(stop(20), HOT).result(WAIT).token_ids == first
    assert sequence.fork(1)[0].extend(stop(20), HOT).result(WAIT).token_ids == kid


def test_forks_all_draw_differently(engine: Engine) -> None:
    parent = engine.open_now([1 + i % 20 for i in range(37)], seed=3)
    families = [parent.fork(3), parent.fork(3)]
    every = [kid for kids in families for kid in kids] + families[0][0].fork(2) + [parent]
    extensions = [sequence.extend(stop(20), HOT) for sequence in every]
    drawn = [extension.result(WAIT).token_ids for extension in extensions]
    assert len({tuple(d) for d in drawn}) == len(every)
    assert all(d == oracle(s, s.tokens[:37], 20) for d, s in zip(drawn, every, strict=True))


def test_a_fork_shares_pages_until_it_writes(engine: Engine) -> None:
    parent = engine.open_now([1 + i % 20 for i in range(37)], seed=3)
    parent.extend(stop(3), HOT).result(WAIT)
    before = engine.stats()["pages_used"]
    kids = parent.fork(4)
    engine.check()
    assert engine.stats()["pages_used"] == before
    for kid in kids:
        assert kid.extend(stop(2), HOT).result(WAIT).token_ids == oracle(kid, parent.tokens, 2)
    assert engine.stats()["pages_used"] == before + 4
    assert parent.extend(stop(2), HOT).result(WAIT).token_ids == oracle(parent, parent.tokens[:40], 2)


def test_a_sequence_opened_at_the_place_of_another_goes_on_as_that_one(engine: Engine) -> None:
    root = engine.open_now(list(range(1, 20)), seed=5)
    kid = root.fork(2)[1]
    mark = kid.mark()
    kid.extend(stop(3), HOT).result(WAIT)
    kid.rewind(mark)
    kid.extend(stop(4), HOT).result(WAIT)
    again = engine.open_now(kid.tokens, place=kid.place)

    def outcomes(sequence: SequenceHandle) -> list[list[int]]:
        here = sequence.mark()
        found = []
        for handle in (sequence, *sequence.fork(2)):
            found.append(handle.extend(stop(6), HOT).result(WAIT).token_ids)
        sequence.rewind(here)
        return [*found, sequence.extend(stop(6), HOT).result(WAIT).token_ids]

    drawn = outcomes(kid)
    assert outcomes(again) == drawn
    assert len({tuple(tokens) for tokens in drawn}) == 4, "each of these places draws noise of its own"
    assert kid.tree == root.id and again.tree == again.id


def test_a_fork_aside_changes_nothing_that_is_drawn_later(engine: Engine) -> None:
    def drawn(looks: int) -> list[list[int]]:
        sequence = engine.open_now(PROMPT, seed=9)
        for handle in sequence.fork(looks, aside=True):
            with handle:
                handle.extend(stop(3), HOT).result(WAIT)
        handles = [sequence, *sequence.fork(2)]
        return [handle.extend(stop(9), HOT).result(WAIT).token_ids for handle in handles]

    assert drawn(3) == drawn(0)


def test_rewinding_into_a_cached_page_leaves_the_cache_right(engine: Engine) -> None:
    prompt = [1 + i % 20 for i in range(20)]
    sequence = engine.open_now(prompt, seed=3)
    mark = sequence.mark()
    old = sequence.extend(stop(30), HOT).result(WAIT).token_ids
    sequence.rewind(mark)
    sequence.append([9] * 30)
    new = sequence.extend(stop(5), HOT).result(WAIT).token_ids
    assert new == oracle(sequence, [*prompt, *[9] * 30], 5)
    witness = engine.open_now(prompt + old, seed=5)
    step = witness.extend(stop(5), HOT).result(WAIT)
    assert step.cached_tokens == 48 and step.token_ids == oracle(witness, prompt + old, 5)
    other = engine.open_now([*prompt, *[9] * 30], seed=5)
    step = other.extend(stop(5), HOT).result(WAIT)
    assert step.cached_tokens == 48 and step.token_ids == oracle(other, [*prompt, *[9] * 30], 5)


def test_keys_of_pages_are_those_of_the_new_tokens_after_a_rewind(engine: Engine) -> None:
    sequence = engine.open_now([1] * 8, seed=3)
    mark = sequence.mark()
    for token in (2, 3):
        sequence.append([token] * 24)
        sequence.extend(stop(1), HOT).result(WAIT)
        sequence.rewind(mark)
    for token in (2, 3):
        tokens = [1] * 8 + [token] * 25
        witness = engine.open_now(tokens, seed=4)
        step = witness.extend(stop(3), HOT).result(WAIT)
        assert step.cached_tokens == 32 and step.token_ids == oracle(witness, tokens, 3)


def test_a_mark_of_another_sequence_or_beyond_the_end_is_refused(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT)
    early = sequence.mark()
    sequence.append([1])
    late = sequence.mark()
    sequence.rewind(early)
    for target, mark in ((sequence, late), (sequence.fork(1)[0], early)):
        with pytest.raises(InvalidRequest, match="mark"):
            target.rewind(mark)


def test_append_forces_tokens(engine: Engine) -> None:
    sequence = engine.open_now(PROMPT, seed=3)
    sequence.append([1, 2]).result(WAIT)
    sequence.append([3])
    assert sequence.tokens == [*PROMPT, 1, 2, 3]
    assert sequence.extend(stop(3), HOT).result(WAIT).token_ids == oracle(sequence, [*PROMPT, 1, 2, 3], 3)
    with pytest.raises(InvalidRequest):
        sequence.append([VOCAB])


# -- score and read ------------------------------------------------------------------------------------


def test_score_leaves_the_sequence_as_it_was(engine: Engine) -> None:
    prompt = [1 + i % 20 for i in range(30)]
    sequence = engine.open_now(prompt, seed=3)
    pieces = [[1, 2, 3], [], [4], [5] * 40]
    found = sequence.score(pieces).result(WAIT)
    for piece, scores in zip(pieces, found, strict=True):
        past = list(prompt)
        for token, score in zip(piece, scores, strict=True):
            assert score == token_logprob(oracle_logits(past), token, 0).logprob
            past.append(token)
    assert sequence.tokens == prompt and engine.stats()["open_sequences"] == 1
    assert sequence.extend(stop(5), HOT).result(WAIT).token_ids == oracle(sequence, prompt, 5)
    assert sequence.score([]).result(WAIT) == [] and sequence.score([[]]).result(WAIT) == [[]]


def test_read_pools_hidden_states(engine: Engine) -> None:
    prompt = [1 + i % 20 for i in range(100)]
    sequence = engine.open_now(prompt, seed=3)
    rows = np.stack([oracle_hidden(prompt[: i + 1]) for i in range(100)])
    assert np.array_equal(sequence.read().result(WAIT), rows[-1])
    assert np.array_equal(sequence.read("hidden:1", "all").result(WAIT), rows)
    mean = sequence.read("hidden:-1", "mean").result(WAIT)
    assert mean.dtype == np.float32 and np.allclose(mean, rows.mean(axis=0), atol=1e-6)
    engine.check()
    assert engine.stats()["open_sequences"] == 1


def test_a_cancelled_read_or_score_frees_its_pages(engine: Engine) -> None:
    sequence = engine.open_now([1 + i % 20 for i in range(400)], seed=3)
    for verb in (lambda: sequence.read(pool="all"), lambda: sequence.score([[1] * 100, [2] * 100])):
        go = threading.Event()
        entered = held(engine, go)
        answer = verb()
        assert entered.wait(WAIT)
        before = engine.stats()["steps"]
        answer.cancel()
        go.set()
        with pytest.raises(HeadraceError, match="cancelled"):
            answer.result(WAIT)
        engine.check()
        assert engine.stats()["steps"] <= before + 1
        assert engine.stats()["open_sequences"] == 1 and engine.stats()["pages_used"] == 0
