"""docs/privacy.md, generated: the threats of veil with the figures of benchmarks/results/veil_attacks.json.

python benchmarks/veil_page.py [--output docs/privacy.md]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from page_parts import OPEN, percent, spanned, table
from veil_exactness_page import section as exactness

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "veil_attacks.json"
PAGE = ROOT / "docs" / "privacy.md"
READ, CACHED = {"positions": 24, "told": 4}, 64
"""What veil_attacks.py asks for, where nothing is measured yet."""
KNOWN = ((256, "types"), (256, "mass"), (1024, "types"), (1024, "mass"))

HEADER = """# Privacy

<!-- Generated: python benchmarks/veil_page.py -->

Under **veil** a server runs weights in a secret basis and sees permuted token ids, with the same operations. It is
obfuscation: text does not lie open in logs, caches and telemetry, but whoever collects the ids decodes part of it, and
whoever holds the veiled and the public weights decodes all. The table says what each party recovers, measured on
{model} ({vocab:,} tokens). The attacks are part of Headrace (`headrace.privacy.attacks`), to be run against one's own
deployment ([attacks.md](attacks.md)).

## Who sees what

W0 are the public weights, W~ the veiled ones, C the ids on the wire. Shares are of distinct tokens, or, where "mass" is
written, of the traffic's tokens; in brackets the 95 % interval. A guess recovers one in {vocab:,}.

"""

ABOUT = """
What no exact symmetry hides from the one who runs the model: attention probabilities (up to the order of heads), the
Gram matrix and norms of the residual stream, the multiset of logits and so the entropy, lengths, timing, which ids are
equal, and which prefixes are shared.

## Align: the public weights at hand

The veiled embedding is P (E + noise) Q, stored as bf16; noise is given as its Frobenius norm over that of E, as a
private fine-tune or deliberate noise would add. *moments* needs the embedding alone; *invariants* also the untied head.

{align}
On the folder that `veil export` writes (bf16), as it is served:

{artefact}
## Bigram: ids on the wire only

The 1,000 most frequent ids by quadratic matching of bigram graphs, the others by propagation, against pairing by
rank of frequency. *in-domain*: both sides are modules of Python's own library, whole works apart, near-duplicates left
out; they still share one project's habits, which flatters the attack. *cross-domain*: the victim's text is
Shakespeare, the attacker's is Python's docstrings and documentation. Means over runs with their own key, split and
place; in brackets the widest bounds of the runs' 95 % intervals. Types are the ids that occur in the traffic; those
that occur fewer than three times are not attacked but count.

{bigram}
## Known pairs

The attacker knows the text of the first ids of the traffic and is scored on the other ids alone.

{known}
With the weights as well, under noise as strong as the embedding, told the tokens of some ids at random:

{pairs}
## What a served model keeps and writes

On the same folder. *oracle*: the veiled model writes ids from no prompt, and bigrams are matched with the attacker's
documentation. *kv*: the first layer's cached keys of {cached} tokens, by the lengths of their rotary planes, which one
factor a plane covers. *hidden*: the first layer's output for {read} tokens, of which a template's first {told} are
told; the whole vocabulary is tried at each of the others. The text is Shakespeare's.

{deployed}
Run it again, or go on where it stopped: `python benchmarks/veil_attacks.py`, then `python benchmarks/veil_page.py`.
{done} of {cells} cells are done; the machine was {machine}.
"""


class Results:
    """The rows of the result file, by attack and setting."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    def of(self, attack: str, **setting: Any) -> list[dict[str, Any]]:
        """The recoveries whose setting has these values."""
        rows = [row for row in self.found["rows"] if row["attack"] == attack]
        return [row["recovery"] for row in rows if setting.items() <= row["setting"].items()]


def shown(recoveries: Sequence[dict[str, Any]], what: str = "types") -> str:
    """The mean over runs and the widest bounds of their intervals."""
    if not recoveries:
        return OPEN
    shares = [recovery[what] for recovery in recoveries]
    mean = sum(each["value"] for each in shares) / len(shares)
    low, high = min(each["low"] for each in shares), max(each["high"] for each in shares)
    return spanned(mean, low, high)


def seconds(recoveries: Sequence[dict[str, Any]]) -> str:
    if not recoveries:
        return OPEN
    return f"{sum(each['cost']['seconds'] for each in recoveries) / len(recoveries):.2g} s"


def writing(recoveries: Sequence[dict[str, Any]]) -> str:
    """The attack's time, and the time in which the model wrote the traffic."""
    if not recoveries:
        return OPEN
    spent = sum(each["details"]["writing_seconds"] for each in recoveries) / len(recoveries)
    return f"{seconds(recoveries)}, and {spent:.2g} s of writing"


def threats(results: Results) -> str:
    """The parties in the order of what they hold."""
    aligned, noisy = results.of("align", noise=0.0, start="moments"), results.of("align", noise=1.0)
    short, longer = (results.of("bigram", domain="in-domain", tokens=tokens) for tokens in (3_000, 30_000))
    told = results.of("known-pairs", domain="in-domain", tokens=30_000, told=256)
    texts = f"mass {shown(short, 'mass')} at 3,000 tokens, {shown(longer, 'mass')} at 30,000; lengths, repeats"
    whole = f"**{shown(aligned)}** of the token map; {shown(noisy)} under noise as strong as the embedding"
    others = f"mass {shown(told, 'mass')} of the others at 30,000 tokens"
    own = results.of("oracle", written=30_000)
    oracle = f"mass {shown(own, 'mass')} from 30,000 ids that it writes itself; no text of the victim's is needed"
    cached, states = results.of("kv"), results.of("hidden")
    kept = f"the prompt: {shown(cached, 'mass')} from keys, {shown(states, 'mass')} from hidden states"
    rows = [
        ["nothing but the network", "what TLS shows", "–", "TLS", "–"],
        ["C: logs, caches", texts, seconds(longer), "a new token map a tenant and every few thousand tokens slows it",
         "a larger vocabulary, “N!”"],
        ["C and 256 known tokens", others, seconds(told), "no key used over a public template; special ids permuted",
         "special ids left fixed"],
        ["W~ only", oracle, writing(own), "attested hardware; short-lived keys", "secrecy of the method"],
        ["**W~ and W0**", whole, seconds(aligned), "none within veil; MPC or attested hardware",
         "fine-tuning, LoRA, noise, keys per head"],
        ["W~ of two keys", "how the keys relate: rows match up to a rotation", "as W~ and W0", "never to keep both",
         "re-keying alone"],
        ["KV cache or activations, and W0", kept, f"{seconds(cached)}; {seconds(states)}",
         "masks of one use, attested hardware", "a static rotation"],
        ["a malicious server", "may answer with another model", "–", "canary prompts with kept answers", "–"],
    ]  # fmt: skip
    return table(["a party has", "and learns", "at a cost of", "what helps", "what does not"], rows)


def align_table(results: Results) -> str:
    rows = []
    for start, noise in (("moments", 0.0), ("moments", 0.1), ("moments", 0.3), ("moments", 1.0), ("invariants", 0.0)):
        found = results.of("align", start=start, noise=noise)
        error = f"{found[0]['details']['rotation_error']:.1e}" if found else OPEN
        rows.append([start, f"{noise:g}", shown(found), error, seconds(found)])
    return table(["start", "noise", "token map", "error of the rotation", "processor time"], rows)


def artefact_table(results: Results) -> str:
    found = results.of("align-artefact")
    solved = found[0]["details"].get("keys", {}) if found else {}
    error = f"{found[0]['details']['rotation_error']:.1e}" if found else OPEN
    keys = [percent(solved[name]) if name in solved else OPEN for name in ("heads", "units")]
    row = [shown(found), error, *keys, seconds(found)]
    return table(["token map", "error of the rotation", "key heads", "hidden units", "processor time"], [row])


def deployed_table(results: Results) -> str:
    rows = []
    for written in (3_000, 30_000):
        own = results.of("oracle", written=written)
        rows.append([f"oracle, {written:,} ids", shown(own), shown(own, "mass"), writing(own)])
    for attack in ("kv", "hidden"):
        found = results.of(attack)
        rows.append([attack, shown(found), shown(found, "mass"), seconds(found)])
    return table(["attack", "types", "mass", "processor time"], rows)


def traffic_table(results: Results, columns: Sequence[tuple[str, Callable[..., str]]]) -> str:
    rows = []
    for domain in ("in-domain", "cross-domain"):
        for tokens in (3_000, 30_000, 300_000, 1_000_000):
            where = {"domain": domain, "tokens": tokens}
            rows.append([domain, f"{tokens:,}", *(show(results, where) for _, show in columns)])
    return table(["texts", "tokens", *(name for name, _ in columns)], rows)


def column(attack: str, what: str, **more: Any) -> Callable[..., str]:
    return lambda results, where: shown(results.of(attack, **where, **more), what)


def page(found: dict[str, Any]) -> str:
    """The whole page as Markdown, from the content of the result file."""
    results = Results(found)
    vocab = found["vocab"]
    bigrams = traffic_table(results, [
        ("rank: types", column("rank-frequency", "types")), ("rank: mass", column("rank-frequency", "mass")),
        ("bigram: types", column("bigram", "types")), ("bigram: mass", column("bigram", "mass")),
        ("runs", lambda results, where: str(len(results.of("bigram", **where)))),
        ("processor time", lambda results, where: seconds(results.of("bigram", **where))),
    ])  # fmt: skip
    columns = [(f"{told:,} told: {what}", column("known-pairs", what, told=told)) for told, what in KNOWN]
    known = traffic_table(results, columns)
    told = [(each, results.of("known-pairs-weights", told=each)) for each in (256, 1024)]
    pairs = table(
        ["told", "token map of the others", "processor time"],
        [[f"{each:,}", shown(found_), seconds(found_)] for each, found_ in told],
    )
    states = next((row["setting"] for row in found["rows"] if row["attack"] == "hidden"), READ)
    cached = next((row["setting"]["positions"] for row in found["rows"] if row["attack"] == "kv"), CACHED)
    body = ABOUT.format(
        artefact=artefact_table(results), deployed=deployed_table(results), cached=cached, read=states["positions"],
        told=states["told"],
        align=align_table(results), bigram=bigrams, known=known, pairs=pairs,
        done=found["done"], cells=found["cells"], machine=found["machine"]["hardware"],
    )  # fmt: skip
    return HEADER.format(model=found["model"], vocab=vocab) + threats(results) + body


SECTIONS: tuple[Callable[[], str], ...] = (exactness,)
"""What stands behind the page, each from a result file of its own."""


def whole() -> str:
    """docs/privacy.md as it should be now."""
    return page(json.loads(RESULTS.read_text(encoding="utf-8"))) + "".join(section() for section in SECTIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=PAGE)
    arguments = parser.parse_args()
    arguments.output.write_text(whole(), encoding="utf-8")


if __name__ == "__main__":
    main()
