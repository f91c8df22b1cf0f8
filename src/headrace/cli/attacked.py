"""What the attack verbs read - models, keys, ids - and how they end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import generation as g
from headrace.cli.keys import Opening
from headrace.cli.show import note, print_json, progress_bars, write
from headrace.spec.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np

    from headrace.privacy.attacks.artefact import Opened
    from headrace.privacy.attacks.recovery import Recovery
    from headrace.privacy.attacks.truth import Truth
    from headrace.privacy.veil.keyfile import ClientKey
    from headrace.spec.options import EngineOptions


@dataclass(frozen=True, slots=True)
class ScoringKey(Opening):
    """The flags of every verb that is scored by the true key, where that is given."""

    key: Annotated[Path | None, typer.Option(help="Key file that the deployment was made with, to score by.")] = None

    def held(self) -> ClientKey | None:
        return None if self.key is None else self.unlocked(self.key)[0]

    def truth(self, deployed: Opened) -> Truth | None:
        held = self.held()
        return None if held is None else truth_by(deployed, held)

    def token_map(self, deployed: Opened) -> np.ndarray | None:
        """The true one of this folder. Raises as `truth` does where the key is not the folder's."""
        found = self.truth(deployed)
        return None if found is None else found.token_map


@dataclass(frozen=True, slots=True)
class Ending:
    """The flags of how an attack ends."""

    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Fail where the key shows a larger share than this recovered.")
    ] = None
    json: g.Json = False

    def finish(self, recovery: Recovery) -> None:
        """Prints it. Raises RecoveryOverThreshold, after that."""
        if self.json:
            print_json(recovery.to_json())
        else:
            write(f"{recovery}\n")
            note(", ".join(f"{name} {shown(value)}" for name, value in recovery.details.items()))
        if self.threshold is not None:
            recovery.check(self.threshold)


def check_threshold(threshold: float | None, scored: bool) -> None:
    """Raises InvalidRequest, before anything is run, for a threshold of what no key will score."""
    from headrace.privacy.attacks.recovery import UNJUDGED

    if threshold is not None and not scored:
        raise InvalidRequest(UNJUDGED, "threshold")


def options(threads: int | None) -> EngineOptions:
    from headrace.spec.options import EngineOptions

    return EngineOptions(threads=threads)


def opened(model: str) -> Opened:
    from headrace.model.catalogue import resolve
    from headrace.privacy.attacks.artefact import Opened

    with progress_bars() as report:
        return Opened(resolve(model, report))


def truth_by(deployed: Opened, key: ClientKey) -> Truth:
    from headrace.privacy.attacks.truth import truth_of

    return truth_of(deployed.path, key, deployed.spec)


def token_map(key: ClientKey | None) -> np.ndarray | None:
    from headrace.privacy.attacks.truth import token_map

    return None if key is None else token_map(key)


def true_tokens(wire: np.ndarray, key: ClientKey | None) -> np.ndarray:
    mapped = token_map(key)
    if mapped is None:
        raise InvalidRequest("What the traffic begins with is not told; give --told, or --key.", "told")
    return mapped[wire]


def file_ids(path: Path, model: Opened) -> np.ndarray:
    """int [tokens]: of an .npy or .ids file as they stand, of another as the model's tokenizer has its text."""
    import numpy as np

    if path.suffix not in (".npy", ".ids"):
        return np.array(model.tokenizer.encode(g.decoded(path.read_bytes())), np.int64)
    try:
        if path.suffix == ".npy":
            ids = np.load(path, allow_pickle=False).astype(np.int64).reshape(-1)
        else:
            ids = np.array(path.read_text("utf-8").replace(",", " ").split(), np.int64)
    except (ValueError, OverflowError, EOFError):
        raise InvalidRequest(f"{path} holds something else than ids; give whole numbers.", "ids") from None
    if ((ids < 0) | (ids >= model.spec.vocab)).any():
        raise InvalidRequest(f"{path} has ids that are not below {model.spec.vocab}; give those of this model.", "ids")
    return ids


def wire_ids(path: Path, model: Opened, key: ClientKey | None) -> np.ndarray:
    """Ids on the wire; a text is veiled first, as the deployment's client does."""
    import numpy as np

    ids = file_ids(path, model)
    if path.suffix in (".npy", ".ids"):
        return ids
    mapped = token_map(key)
    if mapped is None:
        raise InvalidRequest(f"{path} is text; give --key to veil it, or ids as .npy or .ids.", "key")
    return np.argsort(mapped)[ids]


def known_ids(paths: list[Path], model: Opened) -> np.ndarray:
    """The attacker's own ids, int [tokens]. Raises InvalidRequest where they are too few for an attack on traffic."""
    import numpy as np

    from headrace.privacy.attacks.traffic import check_ids

    known = np.concatenate([file_ids(path, model) for path in paths])
    check_ids(known, model.spec.vocab)
    return known


def served_ids(path: Path | None, tokens: int, deployed: Opened, seed: int) -> np.ndarray:
    import numpy as np

    if path is None:
        return np.random.default_rng(seed).integers(deployed.spec.vocab, size=tokens)
    if path.suffix not in (".npy", ".ids"):
        raise InvalidRequest(f"{path} is no .npy or .ids; give the ids that were served.", "ids")
    return file_ids(path, deployed)[:tokens]


def lines(path: Path) -> list[str]:
    return [line for line in g.decoded(path.read_bytes()).splitlines() if line.strip()]


def shown(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {shown(each)}" for name, each in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
