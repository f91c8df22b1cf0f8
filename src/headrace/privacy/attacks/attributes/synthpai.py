"""The published JSON-lines schema of SynthPAI: one comment a line, with its author's profile and the human labels.

The data set itself (CC BY-NC-SA 4.0) is no part of Headrace; this reads a copy of one's own, and writes the same form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headrace.privacy.attacks.attributes.people import ATTRIBUTES, Comment, Person
from headrace.spec.errors import HeadraceError

TEXTS = ("author", "username", "text")
"""Fields of a line that are never empty."""
OPTIONAL = {"id": str, "thread_id": str, "parent_id": str, "children": list, "guesses": list, "reviews": dict}
"""Fields that may be missing or null, and what they are otherwise."""
KINDS = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


class BadLine(HeadraceError):
    """A line of a data file is not of the published schema; `line` counts from 1."""

    def __init__(self, path: Path, line: int, wrong: str) -> None:
        super().__init__(f"{path}, line {line}: {wrong}; mend the line or fetch the file again.")
        self.line = line


def load(path: Path) -> tuple[Person, ...]:
    """People in the order of their first comment. Raises BadLine; HeadraceError for a file that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise HeadraceError(f"{path} cannot be read as text ({error}); give a JSON-lines file of SynthPAI.") from error
    profiles: dict[str, Mapping[str, Any]] = {}
    comments: dict[str, list[Comment]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            found = _checked(path, number, line)
            author = found["author"]
            if profiles.setdefault(author, found["profile"]) != found["profile"]:
                raise BadLine(path, number, f"author {author!r} has another `profile` than before")
            comments.setdefault(author, []).append(_comment(found))
    if not profiles:
        raise HeadraceError(f"{path} has no comments; give a JSON-lines file of SynthPAI.")
    return tuple(Person(author, profile, tuple(comments[author])) for author, profile in profiles.items())


def _checked(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise BadLine(path, number, f"no JSON ({error})") from error
    if wrong := _fault(found):
        raise BadLine(path, number, wrong)
    return found


def _fault(found: Any) -> str:
    """What is wrong with a line, or nothing."""
    if not isinstance(found, dict):
        return "not a JSON object"
    wrong = [_other(found, name, str, name) for name in TEXTS]
    wrong += [f"`{name}` is empty" for name in TEXTS if found.get(name) == ""]
    wrong += [_other(found, name, kind, name) for name, kind in OPTIONAL.items() if found.get(name) is not None]
    profile = found.get("profile")
    if not isinstance(profile, dict):
        return next(filter(None, wrong), "`profile` is missing or not an object")
    wrong += [_other(profile, name, int if name == "age" else str, f"profile.{name}") for name in ATTRIBUTES]
    if isinstance(age := profile.get("age"), int) and not 0 <= age <= 130:
        wrong.append(f"`profile.age` is {age}")
    wrong += [_guess_fault(guess) for guess in _list(found.get("guesses"))]
    wrong += list(_review_faults(found.get("reviews")))
    return next(filter(None, wrong), "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _other(found: Mapping[str, Any], name: str, kind: type, shown: str) -> str:
    if name not in found:
        return f"`{shown}` is missing"
    value = found[name]
    right = isinstance(value, kind) and not isinstance(value, bool)
    return "" if right else f"`{shown}` is {value!r}, not {KINDS[kind]}"


def _guess_fault(guess: Any) -> str:
    whole = isinstance(guess, dict) and isinstance(guess.get("feature"), str) and isinstance(guess.get("guesses"), list)
    return "" if whole else "one of `guesses` has no `feature` with a list of `guesses`"


def _review_faults(reviews: Any) -> Iterable[str]:
    human = reviews.get("human", {}) if isinstance(reviews, dict) else {}
    if not isinstance(human, dict):
        yield f"`reviews.human` is {human!r}, not an object"
        return
    for name in ATTRIBUTES:
        if name in human:
            review = human[name]
            hardness = review.get("hardness") if isinstance(review, dict) else None
            if not isinstance(hardness, int) or not 0 <= hardness <= 5 or "estimate" not in review:
                yield f"`reviews.human.{name}` has no `estimate` with a `hardness` of 0 to 5"


def _comment(found: Mapping[str, Any]) -> Comment:
    human = (found.get("reviews") or {}).get("human", {})
    reviews = {name: human[name] for name in ATTRIBUTES if name in human}
    tells = {name: review["hardness"] for name, review in reviews.items() if review["hardness"] and review["estimate"]}
    return Comment(found["text"], found.get("thread_id") or "", tells)


def dump(people: Iterable[Person], path: Path) -> None:
    """Writes comments as `load` reads them."""
    lines = [_line(person, number, comment) for person in people for number, comment in enumerate(person.comments)]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def _line(person: Person, number: int, comment: Comment) -> dict[str, Any]:
    human = {
        name: {"estimate": person.value(name), "hardness": comment.tells[name], "certainty": 5}
        if name in comment.tells
        else {"estimate": "", "hardness": 0, "certainty": 0}
        for name in ATTRIBUTES
    }
    return {
        "author": person.author, "username": person.profile.get("username") or person.author,
        "parent_id": "", "thread_id": comment.topic, "children": [], "id": f"{person.author}-{number}",
        "text": comment.text, "profile": dict(person.profile), "guesses": None, "reviews": {"human": human},
    }  # fmt: skip
