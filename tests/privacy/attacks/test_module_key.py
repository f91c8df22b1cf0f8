"""Who holds the public weights of a veiled image model reads its images and its answers.

By rows that no key disguises, then linear solves. What is only permuted beside the residual stream's rotation (hidden
units, patches, classes) keeps the lengths of its rows, which tell the order; what has an order and positive factors
(channels behind relu) keeps their directions.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")
pytest.importorskip("scipy.spatial", reason="needs the extra headrace[privacy]")

from privacy.veil.networks import Cnn, Vit, nn, shaken

# isort: split
from headrace.adapt.modules import read_module
from headrace.privacy.attacks.align import procrustes
from headrace.privacy.attacks.nearest import nearest
from headrace.privacy.veil.keys import Master
from headrace.privacy.veil.module_veil import ModuleVeil, cut, fold_batch_norms
from headrace.privacy.veil.modules import CLASSES, PATCHES

IMAGE, PATCH, WIDTH, CLASS_COUNT = (1, 20, 16), 4, 24, 10
PUBLIC = shaken(Vit(IMAGE, PATCH, WIDTH, 2, 1, CLASS_COUNT), 3)
Arrays = dict[str, np.ndarray]


def keyed(module: nn.Module, image: tuple[int, int, int]) -> tuple[ModuleVeil, Arrays, Arrays]:
    """(veil, public arrays, deployed arrays)."""
    graph, arrays = read_module(module, image)
    veil = ModuleVeil(ModuleVeil.recipe(graph, arrays), Master(bytes([5] * 32), "ab" * 32))
    return veil, arrays, veil.apply(arrays)


def rotated_rows(public: np.ndarray, deployed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order int [n], rotation float64 [d, d]) with deployed ~ public[order] @ rotation, for float [n, d] each.

    Rows are ranked by length, turned by Procrustes (Schönemann 1966) and matched anew; n has to reach d.
    """
    ranked = np.argsort(np.linalg.norm(public, axis=1))
    rank = np.argsort(np.argsort(np.linalg.norm(deployed, axis=1)))
    order = nearest(deployed @ procrustes(public[ranked[rank]], deployed).T, public).of_rows
    return order, procrustes(public[order], deployed)


def scaled_rows(public: np.ndarray, deployed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order int [n], factors float [n]) with deployed ~ factors[:, None] * public[order], for float [n, d] each."""
    known, seen = (np.linalg.norm(rows, axis=1, keepdims=True) for rows in (public, deployed))
    order = nearest(deployed / seen, public / known).of_rows
    return order, seen[:, 0] / known[order, 0]


def mixed_columns(public: np.ndarray, deployed: np.ndarray) -> np.ndarray:
    """float [d, d]: the matrix with deployed ~ public @ matrix, for float [n, d] each; n has to reach d."""
    return np.linalg.pinv(public) @ deployed


def stolen(public: Arrays, deployed: Arrays, sent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(patches of the images that were sent, the class of each veiled one), by weights alone."""
    hidden = public["blocks.0.mlp.0.weight"] * public["blocks.0.norm2.weight"]
    _, rotation = rotated_rows(hidden, deployed["blocks.0.mlp.0.weight"])
    order = nearest(deployed["positions"][0, 1:] @ rotation.T, public["positions"][0, 1:]).of_rows
    rows = (rotation @ deployed["patches.weight"].reshape(WIDTH, -1), public["patches.weight"].reshape(WIDTH, -1))
    patches = cut(sent.astype(np.float64), (PATCH, PATCH)) @ mixed_columns(rows[1], rows[0]).T
    classes = nearest(deployed["head.weight"] @ rotation.T, public["head.weight"] * public["norm.weight"]).of_rows
    return patches[:, np.argsort(order)], classes


def test_public_weights_read_the_images_of_a_veiled_vision_transformer() -> None:
    veil, public, deployed = keyed(PUBLIC, IMAGE)
    images = np.random.default_rng(1).uniform(size=(2, *IMAGE))
    found, classes = stolen(public, deployed, veil.client().images(images))
    assert np.abs(found - cut(images, (PATCH, PATCH))).max() < 1e-3
    assert (classes == veil.frames[CLASSES].order).all()


def test_other_weights_read_nothing() -> None:
    veil, _, deployed = keyed(PUBLIC, IMAGE)
    other = read_module(shaken(Vit(IMAGE, PATCH, WIDTH, 2, 1, CLASS_COUNT), 4), IMAGE)[1]
    images = np.random.default_rng(1).uniform(size=(2, *IMAGE))
    found, classes = stolen(other, deployed, veil.client().images(images))
    assert np.linalg.norm(found - cut(images, (PATCH, PATCH))) > 0.5 * np.linalg.norm(images)
    assert (classes == veil.frames[CLASSES].order).mean() < 0.5
    assert sorted(veil.frames[PATCHES].order) == list(range(20))


def test_public_weights_tell_the_channels_and_classes_of_a_veiled_residual_network() -> None:
    veil, arrays, deployed = keyed(shaken(Cnn(3, (16,), CLASS_COUNT), 3), (3, 8, 8))
    public = fold_batch_norms(veil.plan, arrays)
    order, factors = scaled_rows(public["stem.weight"].reshape(16, -1), deployed["stem.weight"].reshape(16, -1))
    stage = veil.frames["stem"]
    assert (order == stage.order).all() and np.allclose(factors, stage.blocks[order, 0, 0], rtol=1e-5)
    columns = deployed["head.weight"] * factors
    classes = nearest(columns[:, np.argsort(order)], public["head.weight"]).of_rows
    assert (classes == veil.frames[CLASSES].order).all()
