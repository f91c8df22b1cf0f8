"""Answers from passages: what is cited, and the page that shows it."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from headrace.evidence.scripted import says, scripted_engine
from headrace.ground.grounded import answer
from headrace.ground.library import Library
from headrace.privacy.labels.engine import LabelledEngine, one_pool
from headrace.privacy.labels.flow import FlowRefused, Labelled
from headrace.spec.errors import HeadraceError
from privacy.labelled import HR, LATTICE, LAW, POLICY, PUBLIC

PAGE = Path(__file__).resolve().parents[2] / "docs" / "labels.md"


def test_an_answer_cites_what_stood_in_its_prompt() -> None:
    pytest.importorskip("bm25s", reason="bm25s is not installed: pip install 'headrace[ground]'")
    library = Library(LATTICE)
    library.add("vault", Labelled("The vault is open.", PUBLIC))
    library.add("code", Labelled("The code of the vault is 4821.", HR))
    question = Labelled("What is the code of the vault?", PUBLIC)
    with scripted_engine(says(("Answer:", " It is known."))) as whole:
        engine = LabelledEngine(POLICY, one_pool(whole))
        told = asyncio.run(answer(engine, library, "ann", question))
        assert told.label == HR and told.value.step.text == " It is known."
        assert [(c.number, c.passage, c.label) for c in told.value.citations] == [(1, "code", HR), (2, "vault", PUBLIC)]
        told = asyncio.run(answer(engine, library, "ann", question, PUBLIC))
        assert told.label == PUBLIC and [c.passage for c in told.value.citations] == ["vault"]
        with pytest.raises(FlowRefused):
            asyncio.run(answer(engine, library, "ann", question, LAW))
        whole.check()
        assert whole.stats()["open_sequences"] == 0


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    library = Library(LATTICE)
    library.add("a", Labelled("vault", PUBLIC))
    with pytest.raises(HeadraceError, match=r"pip install 'headrace\[ground\]'"):
        library.find(PUBLIC, "vault", 1)


def test_the_page_shows_what_works(smollm2: Path) -> None:
    pytest.importorskip("bm25s", reason="bm25s is not installed: pip install 'headrace[ground]'")
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    with redirect_stdout(StringIO()) as shown:
        exec(compile(code, str(PAGE), "exec"), {})
    ann, eve = shown.getvalue().rsplit("\nFlowLabel", 1)
    assert "'code'" in ann and "4821" in ann
    assert "'hours'" in eve and "'code'" not in eve and "4821" not in eve
