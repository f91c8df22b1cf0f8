"""`headrace strategies`: all of them, one, or those of a plan."""

from __future__ import annotations

import json

import pytest


def listed(headrace, *words: str) -> list[str]:
    result = headrace("strategies", *words, "--json")
    assert result.exit_code == 0, result.output
    return [one["name"] for one in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        ("step_beam", ["step_beam"]),
        ("self_consistency(n=4)", ["self_consistency"]),
        ("self_consistency(n=4) | critique | fuse", ["critique", "fuse", "self_consistency"]),
        ("(single & step_beam(width=4)) * 3", ["single", "step_beam"]),
    ],
)
def test_a_plan_shows_what_it_is_made_of(headrace, plan: str, names: list[str]) -> None:
    assert listed(headrace, plan) == names
    assert set(names) < set(listed(headrace))


def test_an_unknown_one_is_refused(headrace) -> None:
    result = headrace("strategies", "beams")
    assert result.exit_code == 2 and "There is no strategy 'beams'" in result.stderr


@pytest.mark.parametrize("name", ["self_consistancy", "zzz"])
def test_a_refusal_ends_with_the_next_step(headrace, name: str) -> None:
    told = headrace("solve", "no-such-model", "1 + 1?", "--strategy", name).stderr
    near = "did you mean self_consistency? " if name != "zzz" else ""
    assert f"There is no strategy {name!r}; {near}`headrace strategies` lists them." in told
