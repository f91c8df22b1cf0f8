"""`headrace solve`: an answer by a strategy of test-time compute, within a budget."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import generation as g
from headrace.cli.flags import with_flags
from headrace.cli.run import model_and_prompt
from headrace.cli.show import note, print_json, stderr, write
from headrace.spec.errors import InvalidRequest
from headrace.spec.options import EngineOptions

if TYPE_CHECKING:
    from rich.tree import Tree as RichTree

    from headrace.engine.surface import Surface
    from headrace.reason.solve import Order, Result
    from headrace.reason.task import Task
    from headrace.reason.view import Branch, Tree
    from headrace.spec.trace import Event, Trace

Words = Annotated[
    list[str],
    typer.Argument(metavar="[MODEL] PROMPT", help="The question, '-' to read it from stdin; before it a model's name."),
]
StrategyText = Annotated[str, typer.Option("--strategy", "-s", help="See `headrace strategies`; joined by | or &.")]
ScorerName = Annotated[str | None, typer.Option("--scorer", help="What scores attempts: judge, probe(NAME or FOLDER).")]
BudgetText = Annotated[
    str, typer.Option("--budget", "-b", help="Bounds, like '400 tok, 10 s, 64 pages'; none if omitted.")
]
AnswerKind = Annotated[str, typer.Option("--answer", help="What an answer is: text, number, choice, line, json, math.")]
MostTokens = Annotated[int, typer.Option("--max-tokens", "-n", min=0, help="Most new tokens of one attempt.")]
Temperature = Annotated[float, typer.Option(help="Of every draw; 0 makes all attempts alike.")]
TracePath = Annotated[Path | None, typer.Option("--trace", help="Write every event to this JSON-lines file.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that --trace holds.")]
Raw = Annotated[bool, typer.Option("--raw", help="Complete the text as it is, without the chat template.")]


@with_flags(options=EngineOptions)
def solve(
    words: Words,
    strategy: StrategyText = "self_consistency(n=8)",
    scorer: ScorerName = None,
    budget: BudgetText = "",
    answer: AnswerKind = "text",
    max_tokens: MostTokens = 256,
    temperature: Temperature = 0.8,
    seed: g.Seed = None,
    adapter_scale: g.AdapterScale = 1.0,
    trace: TracePath = None,
    resume: Resume = False,
    raw: Raw = False,
    json: g.Json = False,
    options: EngineOptions = EngineOptions(),
) -> None:
    """Answer one question with a strategy, within a budget."""
    from headrace.reason.answers import answer_space
    from headrace.reason.scorers import scorer_named
    from headrace.reason.solve import Order
    from headrace.reason.strategy import parse
    from headrace.reason.task import Task
    from headrace.spec.budget import Budget
    from headrace.spec.sampling import Sampling, Stop

    model, question = model_and_prompt(words, raw)
    parse(strategy)
    order = Order(
        strategy,
        Budget.parse(budget) if budget else Budget(),
        scorer_named(scorer, folders=True) if scorer else None,
        seed,
        Sampling(temperature=temperature),
        g.adapter_of(options, adapter_scale),
        trace,
        resume,
    )
    if trace is not None and trace.exists() and not resume:
        raise InvalidRequest(f"{trace} is there already; add --resume to go on with it, or name another file.", "trace")
    space = answer_space(answer)
    with g.loaded_engine(model, options, quiet=json) as engine:
        chat = not raw and engine.tokenizer is not None and engine.tokenizer.chat_template is not None
        task = Task(question, space, ending=Stop(tokens=max_tokens), chat=chat)
        result = carried_out(engine, task, order, quiet=json)
        show(engine, result, json)


def carried_out(engine: Surface, task: Task, order: Order, quiet: bool) -> Result:
    import asyncio

    from headrace.reason.solve import solve as solved
    from headrace.reason.view import Tree
    from headrace.spec.trace import Trace

    if quiet or order.resume:
        return asyncio.run(solved(engine, task, order))
    trace, tree = Trace(order.trace), Tree()
    if not sys.stderr.isatty():
        trace.listen(lambda event: _line(event, tree))
        return asyncio.run(solved(engine, task, order, trace))
    return _live(engine, task, order, trace, tree)


def _line(event: Event, tree: Tree) -> None:
    """One line a candidate, where no terminal can show the tree."""
    tree.add(event)
    if event.kind == "candidate":
        data = event.data
        score = "" if data["score"] is None else f" · score {data['score']:.2f}"
        note(f"candidate {event.node.removeprefix('candidate')}: {_short(data['answer'] or 'unparsed')}{score}")


def _live(engine: Surface, task: Task, order: Order, trace: Trace, tree: Tree) -> Result:
    """The tree as it grows, drawn at most ten times a second."""
    import asyncio

    from rich.live import Live

    from headrace.reason.solve import solve as solved

    with Live(console=stderr(), auto_refresh=False, transient=False) as live:
        drawn = [0.0]

        def grow(event: Event) -> None:
            tree.add(event)
            if event.kind == "result" or time.monotonic() - drawn[0] > 0.1:
                drawn[0] = time.monotonic()
                live.update(picture(tree), refresh=True)

        trace.listen(grow)
        return asyncio.run(solved(engine, task, order, trace))


def picture(tree: Tree) -> RichTree:
    from rich.tree import Tree as RichTree

    whole = RichTree(f"[dim]{tree.tokens} tokens[/dim]")
    for root in tree.roots:
        _draw(root, whole, tree)
    return whole


def _draw(branch: Branch, onto: RichTree, tree: Tree) -> None:
    from rich.markup import escape

    words = " ".join(branch.text.split())
    text = escape(words[:60] + ("…" if len(words) > 60 else "")) or "·"
    score = "" if branch.score is None else f" [cyan]{branch.score:.2f}[/cyan]"
    answer = f" [bold]→ {escape(branch.answer[:40])}[/bold]" if branch.answer else ""
    style = ("[green]", "[/green]") if branch.id == tree.best else ("", "")
    here = onto.add(f"{style[0]}{text}{style[1]}{score}{answer}")
    for kid in branch.kids:
        _draw(kid, here, tree)


def show(engine: Surface, result: Result, json: bool) -> None:
    if json:
        print_json(result.as_json() | {"model": engine.model_name, "profile": engine.guarantees.profile})
        return
    write(result.text.strip() + "\n")
    note(" · ".join(_figures(result)))
    sys.stdout.flush()


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _figures(result: Result) -> list[str]:
    usage: dict[str, Any] = result.usage
    low, high = result.interval
    agreed = f"{result.confidence:.0%} of candidates agree [{low:.0%}, {high:.0%}]"
    return [
        "unparsed" if result.answer is None else f"answer: {_short(result.answer)}",
        agreed if len(result.candidates) > 1 else "one candidate",
        f"{usage['prompt']} given ({usage['cached']} cached) + {usage['completion']} new tokens",
        f"{usage['forks']} forks",
        f"{usage['kv_peak_pages']} pages",
        f"{usage['seconds']:.2f} s",
        f"stopped by {result.stopped_by}",
        f"seed {result.seed}",
    ]
