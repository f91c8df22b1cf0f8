"""What the attack verbs read - models, keys, ids - and how they end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli import generation as g
from headrace.cli.show import note, print_json, progress_bars, write
from headrace.cli.veil import unlocked
from headrace.spec.errors import HeadraceError, InvalidRequest

if TYPE_CHECKING:
    import numpy as np

    from headrace.privacy.attacks.artefact import Opened
    from headrace.privacy.attacks.recovery import Recovery
    from headrace.privacy.attacks.truth import Truth
    from headrace.privacy.veil.keyfile import ClientKey
    from headrace.spec.options import EngineOptions


def check_extra() -> None:
    """Raises HeadraceError where the libraries of the extra are missing."""
    from importlib.util import find_spec

    if not all(find_spec(name) for name in ("cryptography", "pyrage", "scipy")):
        raise HeadraceError("Attacks need cryptography, pyrage and scipy; run `pip install headrace[privacy]`.")


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


def opened_key(key: Path | None, identity: Path | None, passphrase_file: Path | None) -> ClientKey | None:
    return None if key is None else unlocked(key, identity, passphrase_file)[0]


def truth(deployed: Opened, key: Path | None, identity: Path | None, passphrase_file: Path | None) -> Truth | None:
    held = opened_key(key, identity, passphrase_file)
    return None if held is None else truth_by(deployed, held)


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
    import numpy as np

    return np.concatenate([file_ids(path, model) for path in paths])


def served_ids(path: Path | None, tokens: int, deployed: Opened, seed: int) -> np.ndarray:
    import numpy as np

    if path is None:
        return np.random.default_rng(seed).integers(deployed.spec.vocab, size=tokens)
    if path.suffix not in (".npy", ".ids"):
        raise InvalidRequest(f"{path} is no .npy or .ids; give the ids that were served.", "ids")
    return file_ids(path, deployed)[:tokens]


def lines(path: Path) -> list[str]:
    return [line for line in g.decoded(path.read_bytes()).splitlines() if line.strip()]


def finish(recovery: Recovery, threshold: float | None, as_json: bool) -> None:
    """Prints it. Raises RecoveryOverThreshold, after that."""
    if as_json:
        print_json(recovery.to_json())
    else:
        write(f"{recovery}\n")
        note(", ".join(f"{name} {shown(value)}" for name, value in recovery.details.items()))
    if threshold is not None:
        recovery.check(threshold)


def shown(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {shown(each)}" for name, each in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
