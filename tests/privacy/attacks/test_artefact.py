"""Tables of a model that lies there, as an attack reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")
pytest.importorskip("pyrage", reason="headrace[privacy] is not installed")
pytest.importorskip("scipy", reason="headrace[privacy] is not installed")
pytest.importorskip("torch", reason="twins are made by transformers")

from headrace.privacy.attacks.align import invariants
from headrace.privacy.attacks.artefact import embedding, head
from headrace.spec.errors import ModelFileError, UnsupportedModel
from privacy.veil.made import BY_NAME, make_pair, make_twin


@pytest.mark.parametrize("name", ["llama-tied", "qwen2"])
def test_a_veil_leaves_the_invariants_of_these_tables(name: str, tmp_path: Path) -> None:
    """Norms of embedding and head rows and their product, the same on both sides once ids are put back."""
    pair = make_pair(BY_NAME[name], tmp_path)
    known, seen = (invariants(embedding(folder), head(folder)) for folder in (pair.source, pair.folder))
    order = pair.tokens.veiled(range(pair.key.vocab))
    np.testing.assert_allclose(seen[order], known, rtol=1e-4, atol=1e-5)
    assert not np.allclose(seen, known, rtol=1e-2)


def test_a_tied_head_is_the_embedding_behind_the_last_norms_gain(tmp_path: Path) -> None:
    pair = make_pair(BY_NAME["llama-tied"], tmp_path)
    gain = pair.plain.weights.weights["norm.weight"].numpy()
    np.testing.assert_array_equal(head(pair.source), embedding(pair.source) * gain)
    assert embedding(pair.source).dtype == head(pair.source).dtype == np.float32


def test_what_names_no_tokens_is_refused(tmp_path: Path) -> None:
    make_twin(BY_NAME["bert"], tmp_path / "bert")
    with pytest.raises(UnsupportedModel, match="encoder"):
        head(tmp_path / "bert")
    with pytest.raises(ModelFileError):
        embedding(tmp_path / "none")
