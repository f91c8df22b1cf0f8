"""Text of a stream of tokens: whole characters, stop strings, what is held back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.text import TextStream

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


class Pieces:
    """A vocabulary made of the pieces themselves: token i adds piece i."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def token_bytes(self, token: int) -> bytes:
        return self.pieces[token]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


def stream(pieces: list[bytes], stops: tuple[str, ...] = (), include: bool = False) -> tuple[TextStream, list[str]]:
    text = TextStream(Pieces(pieces), stops, [], include)
    shown = [text.push(token) for token in range(len(pieces))]
    shown.append(text.finish())
    return text, shown


@settings(max_examples=300)
@given(TEXT, st.lists(st.integers(0, 200), max_size=60))
def test_pieces_joined_are_the_text(whole: str, cuts: list[int]) -> None:
    text, shown = stream(split(whole.encode(), cuts))
    assert "".join(shown) == text.text == whole
    assert all("\ufffd" not in piece for piece in shown) or "\ufffd" in whole


@settings(max_examples=200)
@given(TEXT, st.lists(st.integers(0, 200), max_size=60), st.integers(0, 60))
def test_an_open_character_is_carried_over_to_the_next_extend(whole: str, cuts: list[int], border: int) -> None:
    pieces = split(whole.encode(), cuts)
    vocabulary, border = Pieces(pieces), border % (len(pieces) + 1)
    first, second = TextStream(vocabulary, (), []), TextStream(vocabulary, (), list(range(border)))
    for token in range(len(pieces)):
        (first if token < border else second).push(token)
    first.finish()
    second.finish()
    assert first.text + second.text == whole


def test_broken_bytes_become_replacement_characters() -> None:
    text, shown = stream([b"a\xff", b"\xe2\x82", b"b"])
    assert shown == ["a\ufffd", "", "\ufffdb", ""] and text.text == "a\ufffd\ufffdb"


def test_an_incomplete_last_character_stays_unshown() -> None:
    text, shown = stream([b"a", b"\xe2\x82"])
    assert shown == ["a", "", ""] and text.text == "a"


def test_a_stop_string_across_tokens_is_found_and_cut() -> None:
    text, shown = stream([b"one ", b"ST", b"O", b"P two"], ("STOP",))
    assert shown == ["one ", "", "", "", ""] and text.matched == "STOP"


def test_a_stop_string_is_kept_with_include() -> None:
    text, shown = stream([b"one ST", b"OP two"], ("STOP",), include=True)
    assert "".join(shown) == text.text == "one STOP"


def test_held_text_is_shown_when_it_is_no_stop_after_all() -> None:
    text, shown = stream([b"ST", b"A", b"ST"], ("STOP",))
    assert shown == ["", "STA", "", "ST"] and text.matched is None and text.text == "STAST"


def test_the_earliest_match_wins_and_of_those_the_longest() -> None:
    assert stream([b"xabcd"], ("cd", "bc"))[0].matched == "bc"
    text, shown = stream([b"xabcd"], ("ab", "abc", "cd"))
    assert text.matched == "abc" and "".join(shown) == "x"


def test_overlapping_starts_are_held_back_as_far_as_needed() -> None:
    text, shown = stream([b"a", b"a", b"a", b"b"], ("aab",))
    assert shown == ["", "", "a", "", ""] and text.matched == "aab"


def test_nothing_follows_a_match() -> None:
    text, shown = stream([b"a.b", b"c"], (".",))
    assert shown == ["a", "", ""] and text.text == "a"


def test_a_stop_string_may_be_an_emoji_in_four_tokens() -> None:
    text, shown = stream([b"a", *(bytes([b]) for b in "\U0001f600".encode())], ("\U0001f600",))
    assert "".join(shown) == "a" and text.matched == "\U0001f600"


@settings(max_examples=300)
@given(
    st.text("abé\U0001f600", max_size=30),
    st.lists(st.text("abé\U0001f600", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(0, 100), max_size=40),
    st.booleans(),
)
def test_stops_match_a_slow_oracle(whole: str, stops: list[str], cuts: list[int], include: bool) -> None:
    """After each token: the earliest stop in all text so far; before one: nothing shown that a stop could begin."""
    pieces = split(whole.encode(), cuts)
    text, done = TextStream(Pieces(pieces), stops, [], include), b""
    for token, piece in enumerate(pieces):
        text.push(token)
        done += piece
        so_far = done.decode(errors="ignore")
        hits = [(so_far.find(stop), -len(stop), stop) for stop in stops if stop in so_far]
        if hits:
            at, _, stop = min(hits)
            assert text.matched == stop and text.text == so_far[: at + len(stop) * include]
            return
        rest = so_far[len(text.text) :]
        assert so_far.startswith(text.text)
        assert rest == "" or any(stop.startswith(rest) for stop in stops), "held back without need"
        assert not any(so_far.endswith(stop[:n]) and n > len(rest) for stop in stops for n in range(1, len(stop)))
    text.finish()
    assert text.text == whole and text.matched is None


@pytest.mark.parametrize("before", [b"", b"abc", b"\x82\xac", b"\xff", b"\xf0\x9f\x98\x80"])
def test_nothing_is_carried_over_from_whole_or_broken_text(before: bytes) -> None:
    text = TextStream(Pieces([before, b"x"]), (), [0])
    assert text.push(1) == "x"


@pytest.mark.parametrize(("character", "cut"), [(c, cut) for c in "é€\U0001f600" for cut in range(1, len(c.encode()))])
def test_every_cut_of_a_character_is_carried_over(character: str, cut: int) -> None:
    data = b"a" + character.encode()
    text = TextStream(Pieces([data[: cut + 1], data[cut + 1 :]]), (), [0])
    assert text.push(1) == character
