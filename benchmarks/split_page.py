"""docs/split.md, generated: the split profile with the figures of benchmarks/results/split_inversion.json.

python benchmarks/split_page.py [--output docs/split.md]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from page_parts import OPEN, spanned, table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "split_inversion.json"
PAGE = ROOT / "docs" / "split.md"

HEADER = """# The split

<!-- Generated: python benchmarks/split_page.py -->

Under **split:k** the client keeps the tokenizer, the embedding, the first k blocks, the final norm and the head; a
server runs the blocks between. It is sent a state a token and sends a state back; no token id and no text leaves the
client, and without noise the answer is the plain model's. That hides little from a server that holds the weights of
the client's part, as everyone does of a public model:

- **The prompt**: a state tells the token that it was made of, and tokens are read one after the other. The tables say
  how much, for {model} ({layers} blocks, states of {hidden} values, {vocab:,} tokens).
- **The answer**: the server knows the state from which each token is chosen. The public head makes it the client's own
  logits, whatever the noise; greedy tokens follow at once, drawn ones with the next state.
- **At k = 0** equal tokens are equal states, so repeats and frequencies show without any weights.

Where embedding, first blocks and head are private, the server has the last of these, lengths and timing, and what it
can learn of the client's part from traffic.

```
headrace split serve MODEL --k 2                                             # there
headrace split run MODEL "What is a weir?" --k 2 --url http://there:8002     # here; --noise 0.3
```

Both sides run the reference backend (`headrace[torch]`), as it alone can begin in the middle of a model: a piece has
the wire for its embedding table. States travel as float32 over plain HTTP; between machines put TLS before it. The
server holds the keys and values of `--slots` sequences and forgets the one used longest ago, which then has to begin
again. Under noise that shows it the same states under other noise, and the mean of both has less.

The client sends noise with each state if it is asked to: Gaussian, drawn from ChaCha20 under a key of the moment, its
norm on average the given share of the state's own.

## Without noise

Greedy answers through a server in a process of its own, beside the plain model on the same backend, turn by turn.

{exact}
Bytes are those of the states, both ways. The last column compares with the native backend, which serves the plain
model otherwise.

## What the server reads, and what the noise costs

*Recovered* are positions of the victim's prompts, by an attacker who knows the public weights, k and the strength of
the noise, and has {fit} tokens of other text; *with the language* it also weighs what the public model expects next.
*Same token* is how often the answer's first choice is the plain model's, and KL, in nats, how far its distribution is
from the plain one. In brackets the 95 % interval, over prompts, as positions of one prompt go together.

{noise}
Processor time is that of a token of the prompt. Before that the whole vocabulary is run twice, once for all prompts:
{tables}.

The attack keeps one guess a position and looks at no more than a few hundred candidates; better ones exist (beams,
trained inverters), so these are lower bounds of what leaks. Prompts are paragraphs of Python's language reference,
whole topics apart from the attacker's; the model may have read them, which helps the language's guess.
{null}
Run it again, or go on where it stopped: `python benchmarks/split_inversion.py`, then `python benchmarks/split_page.py`.
{done} of {cells} cells are done; the machine was {machine}.
"""


class Results:
    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    def of(self, kind: str, **setting: Any) -> dict[str, Any] | None:
        """What the cell at exactly this setting found."""
        rows = self.found["rows"]
        return next((row["found"] for row in rows if row["kind"] == kind and row["setting"] == setting), None)


def shown(share: dict[str, float]) -> str:
    return spanned(share["value"], share["low"], share["high"])


def told(found: dict[str, Any] | None, say: Callable[[dict[str, Any]], str]) -> str:
    return OPEN if found is None else say(found)


def exact_table(results: Results) -> str:
    columns: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("same tokens", lambda found: f"{found['same']:,} of {found['tokens']:,}"),
        ("greatest difference of a logit", lambda found: f"{found['logits_apart']:.2g}"),
        ("bytes a token", lambda found: f"{found['bytes_a_token']:,.0f}"),
        ("time a token over the plain model's", lambda found: f"{found['slowdown']:.2f}"),
        ("over the native backend's", lambda found: f"{found['slowdown_native']:.2f}"),
    ]
    rows = []
    for k in results.found["sizes"]["depths"]:
        found = results.of("exact", k=k)
        rows.append([f"{k}", *(told(found, say) for _, say in columns)])
    return table(["k", *(name for name, _ in columns)], rows)


def noise_table(results: Results) -> str:
    rows = []
    for k in results.found["sizes"]["depths"]:
        for noise in results.found["sizes"]["noises"]:
            used = results.of("utility", k=k, noise=noise)
            plain = results.of("inversion", k=k, noise=noise, prior=False)
            prior = results.of("inversion", k=k, noise=noise, prior=True)
            rows.append([
                f"{k}", f"{noise:g}", told(plain, lambda found: shown(found["mass"])),
                "–" if not noise else told(prior, lambda found: shown(found["mass"])),
                told(plain, lambda found: f"{found['cost']['seconds'] / found['cost']['tokens']:.2g} s"),
                told(used, lambda found: shown(found["agreement"])),
                told(used, lambda found: f"{found['divergence']:.2g}"),
            ])  # fmt: skip
    head = ["k", "noise", "recovered", "with the language", "processor time a token", "same token", "KL"]
    return table(head, rows)


def tables_line(results: Results) -> str:
    """Two tables of the vocabulary, made once a k."""
    took = []
    for k in results.found["sizes"]["depths"]:
        cell = results.of("inversion", k=k, noise=0.0, prior=False)
        took.append(told(cell, lambda found: f"{found['details']['tables_seconds']:.0f} s") + f" at k = {k}")
    return ", ".join(took)


def null_lines(results: Results) -> str:
    lines = []
    for k in results.found["sizes"]["depths"]:
        if (found := results.of("null", k=k)) is not None:
            share = found["mass"]
            lines.append(
                f"At k = {k}, random states of the same length give {shown(share)}; chance {share['chance']:.2g}."
            )
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def page(found: dict[str, Any]) -> str:
    """The whole page as Markdown, from the content of the result file."""
    results = Results(found)
    return HEADER.format(
        model=found["model"], layers=found["layers"], hidden=found["hidden"], vocab=found["vocab"],
        fit=f"{found['sizes']['fit']:,}", exact=exact_table(results), noise=noise_table(results),
        tables=tables_line(results), null=null_lines(results),
        done=found["done"], cells=found["cells"], machine=found["machine"]["hardware"],
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=PAGE)
    arguments = parser.parse_args()
    arguments.output.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
