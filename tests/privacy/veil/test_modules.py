"""A vision transformer and a residual network compute under a key what they did, and refuse what has no symmetry."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cryptography", reason="headrace[privacy] is not installed")

from privacy.veil.networks import Cnn, Vit, nn, run, shaken, stripes, torch, trained

# isort: split
from headrace.adapt.modules import read_module, write_module
from headrace.privacy.veil.errors import SymmetryError
from headrace.privacy.veil.keys import Master
from headrace.privacy.veil.module_veil import ImageClient, ModuleVeil, arrays_digest, cut, joined
from headrace.privacy.veil.modules import CLASSES, PATCHES, PIXELS, ModulePlan

TOLERANCE = 1e-5
PAGE = Path(__file__).resolve().parents[3] / "docs" / "veil.md"


@dataclass
class Veiled:
    module: nn.Module
    plan: ModulePlan
    client: ImageClient
    other: ImageClient
    """Of another key."""

    def answer(self, images: np.ndarray, client: ImageClient | None = None) -> np.ndarray:
        who = client or self.client
        return who.logits(run(self.module, who.images(images)))


def veiled(module: nn.Module, image: tuple[int, int, int], seed: int = 7, **asked: str) -> Veiled:
    graph, arrays = read_module(module, image)
    plan = ModuleVeil.recipe(graph, arrays, asked or None)
    masters = [Master(one.to_bytes(32), "ab" * 32) for one in (seed, seed + 1)]
    veils = [ModuleVeil(plan, master) for master in masters]
    twin = copy.deepcopy(module)
    write_module(twin, veils[0].apply(arrays))
    return Veiled(twin, plan, veils[0].client(), veils[1].client())


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def images_of(image: tuple[int, int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((3, *image)).astype(np.float32)


@settings(max_examples=10, deadline=None)
@given(st.data(), st.integers(0, 2**32))
def test_any_small_vision_transformer_is_exact(data: st.DataObject, seed: int) -> None:
    draw = data.draw
    patch, heads = draw(st.sampled_from([2, 3])), draw(st.sampled_from([1, 2, 3]))
    sides = [patch * draw(st.integers(1, 3)) for _ in range(2)]
    image, width = (draw(st.sampled_from([1, 3])), sides[0], sides[1]), heads * draw(st.sampled_from([4, 6]))
    act, norm = draw(st.sampled_from([nn.GELU, nn.ReLU])), draw(st.sampled_from([nn.LayerNorm, nn.RMSNorm]))
    how = {"token": draw(st.booleans()), "act": act, "norm": norm, "bias": draw(st.booleans())}
    module = shaken(Vit(image, patch, width, heads, draw(st.sampled_from([1, 2])), 5, **how), seed)
    images = images_of(image, seed)
    found, wanted = veiled(module, image, seed), run(module, images)
    assert difference(found.answer(images), wanted) < TOLERANCE
    assert found.client.hidden and {PIXELS, PATCHES, CLASSES} <= found.plan.axes.keys()


@settings(max_examples=10, deadline=None)
@given(st.data(), st.integers(0, 2**32))
def test_any_small_residual_network_is_exact(data: st.DataObject, seed: int) -> None:
    draw = data.draw
    widths = tuple(draw(st.lists(st.integers(2, 7), min_size=1, max_size=3)))
    act, pool = draw(st.sampled_from([nn.ReLU, nn.SiLU])), draw(st.sampled_from([None, nn.MaxPool2d(2)]))
    image = (draw(st.sampled_from([1, 3])), draw(st.integers(6, 9)), draw(st.integers(6, 9)))
    module = shaken(Cnn(image[0], widths, 5, act, pool), seed)
    images = images_of(image, seed)
    found, wanted = veiled(module, image, seed), run(module, images)
    assert difference(found.answer(images), wanted) < TOLERANCE
    assert not found.client.hidden and np.array_equal(found.client.images(images), images)


def test_the_groups_are_those_of_the_operations() -> None:
    vit = veiled(shaken(Vit((3, 8, 8), 4, 12, 3, 1, 5), 0), (3, 8, 8)).plan
    axes = {name: (axis.group, axis.size) for name, axis in vit.axes.items()}
    assert axes.pop("patches") == ("orthogonal_one", 12)
    assert axes.pop("blocks_0_mlp_0") == ("permutation", 48)
    assert axes == {PIXELS: ("general", 48), PATCHES: ("permutation", 4), CLASSES: ("permutation", 5)}
    (heads,) = vit.heads.values()
    assert (heads.count, heads.width, heads.rope, heads.qk, heads.vo) == (3, 4, 0, "general", "general")
    cnn = veiled(shaken(Cnn(3, (4, 6), 5), 0), (3, 8, 8)).plan
    axes = {name: (axis.group, axis.size) for name, axis in cnn.axes.items()}
    stage = {"stages_1_conv2": ("scaled", 6)}
    inside = {"stages_0_conv1": ("scaled", 4), "stages_1_conv1": ("scaled", 6)}
    assert axes == {"x": ("identity", 3), "stem": ("scaled", 4), **stage, **inside, CLASSES: ("permutation", 5)}
    assert len(cnn.folded) == 6


def test_patches_that_neighbours_look_at_keep_their_order_and_hide_their_pixels() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 6, 2, 2), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    images = images_of((3, 8, 8), 1)
    found = veiled(shaken(module, 1), (3, 8, 8))
    assert difference(found.answer(images), run(module, images)) < TOLERANCE
    assert found.client.hidden and PATCHES not in found.plan.axes


def test_a_batch_norm_on_a_sum_is_permuted() -> None:
    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.norm = nn.Conv2d(1, 5, 3), nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5)
            self.head = nn.Linear(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            x = x + self.conv(torch.relu(self.norm(x)))
            return self.head(x.mean(dim=(2, 3)))

    module, images = shaken(Before(), 3), images_of((1, 7, 7), 3)
    found = veiled(module, (1, 7, 7))
    assert difference(found.answer(images), run(module, images)) < TOLERANCE
    assert found.plan.axes["stem"].group == "permutation" and not found.plan.folded


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_a_trained_module_keeps_its_answers_and_another_key_reads_nothing(kind: str) -> None:
    torch.manual_seed(1)
    fresh = Vit((1, 8, 8), 4, 16, 2, 1, 4) if kind == "vit" else Cnn(1, (6, 8), 4)
    module = trained(fresh, 8)
    images, classes = stripes(200, 8, 999)
    wanted, found = run(module, images), veiled(module, (1, 8, 8))
    answers = found.answer(images)
    assert (wanted.argmax(1) == classes).mean() > 0.8, "it must have learnt something"
    assert difference(answers, wanted) < TOLERANCE and (answers.argmax(1) == wanted.argmax(1)).all()
    seen = run(found.module, found.client.images(images))
    assert found.client.labels(seen.argmax(1)) == wanted.argmax(1).tolist()
    garbage = found.answer(images, found.other)
    assert difference(garbage, wanted) > 0.3 and (garbage.argmax(1) == classes).mean() < 0.6
    assert difference(run(found.module, images), wanted) > 0.3


def test_an_encoded_image_is_the_key_times_the_image() -> None:
    images = images_of((3, 6, 4), 5)
    assert np.array_equal(joined(cut(images, (3, 2)), (3, 6, 4), (3, 2)), images)
    found = veiled(shaken(Vit((3, 6, 4), 2, 8, 2, 1, 4), 5), (3, 6, 4))
    sent = found.client.images(images)
    assert sent.shape == images.shape and difference(sent, images) > 0.5
    frames = found.client.frames
    back = frames[PIXELS].undo(frames[PATCHES].undo(cut(sent, (2, 2)), -2))
    assert np.allclose(back, cut(images, (2, 2)), atol=1e-5)
    with pytest.raises(SymmetryError, match="resize"):
        found.client.images(images[:, :1])


def test_the_digest_is_of_names_shapes_and_values() -> None:
    arrays = {"a": np.arange(6.0), "b": np.ones(2)}
    others = ({"a": arrays["a"].reshape(2, 3), "b": arrays["b"]}, {"a": arrays["a"] + 1e-3, "b": arrays["b"]})
    assert arrays_digest(arrays) == arrays_digest(dict(reversed(arrays.items())))
    assert len({arrays_digest(one) for one in (arrays, *others, {"a": arrays["a"], "c": arrays["b"]})}) == 4


def test_what_has_no_symmetry_is_refused_by_name() -> None:
    with pytest.raises(SymmetryError, match=r"stem cannot be keyed by 'orthogonal'.*'scaled'"):
        veiled(shaken(Cnn(1, (4,), 3), 0), (1, 6, 6), stem="orthogonal")
    with pytest.raises(SymmetryError, match=r"patches cannot be keyed by 'orthogonal'.*'orthogonal_one'"):
        veiled(shaken(Vit((1, 4, 4), 2, 8, 2, 1, 3), 0), (1, 4, 4), patches="orthogonal")
    with pytest.raises(SymmetryError, match="Nothing here is called 'steam'"):
        veiled(shaken(Cnn(1, (4,), 3), 0), (1, 6, 6), steam="identity")
    graph, arrays = read_module(shaken(Cnn(1, (4,), 3), 0), (1, 6, 6))
    with pytest.raises(SymmetryError, match="give 1 or a bit more"):
        ModuleVeil(ModuleVeil.recipe(graph, arrays), Master(bytes(32), "ab" * 32), condition=0.9)
    with pytest.raises(SymmetryError, match="the tensor extra"):
        ModuleVeil.recipe(graph, arrays | {"extra": np.ones(3)})
    with pytest.raises(SymmetryError, match=r"head\.weight is missing"):
        ModuleVeil.recipe(graph, {name: values for name, values in arrays.items() if name != "head.weight"})


def test_a_norm_without_a_gain_for_its_bias_and_a_shared_tensor_are_refused() -> None:
    module = shaken(Vit((1, 4, 4), 2, 8, 2, 1, 3), 0)
    with torch.no_grad():
        module.norm.weight[2] = 0
    with pytest.raises(SymmetryError, match=r"norm\.weight has a gain of 0"):
        veiled(module, (1, 4, 4))
    module = shaken(Cnn(1, (4,), 3), 0)
    module.stages = nn.Sequential(module.stages[0], module.stages[0])
    with pytest.raises(SymmetryError, match="is used twice"):
        veiled(module, (1, 6, 6))


def test_a_smaller_group_that_was_asked_for_holds() -> None:
    module, images = shaken(Vit((1, 4, 4), 2, 8, 2, 1, 3), 4), images_of((1, 4, 4), 4)
    found = veiled(module, (1, 4, 4), **{"patches": "permutation", PIXELS: "orthogonal", PATCHES: "identity"})
    assert difference(found.answer(images), run(module, images)) < TOLERANCE and found.client.hidden
    found = veiled(module, (1, 4, 4), **{PIXELS: "identity", PATCHES: "identity"})
    assert np.array_equal(found.client.images(images), images) and not found.client.hidden


def test_the_page_shows_what_works() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    module, images = shaken(Vit((3, 32, 32), 8, 12, 2, 1, 4), 2), images_of((3, 32, 32), 2)
    wanted, told = run(module, images), {"module": module, "images": images, "torch": torch}
    exec(compile(code, str(PAGE), "exec"), told)
    assert difference(told["logits"], wanted) < TOLERANCE and difference(run(module, images), wanted) > 0.1
