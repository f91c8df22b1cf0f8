"""A small vision transformer and a small residual network as anybody would write them, and images to learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="plain modules are torch's")
from torch import nn  # noqa: E402

Norm = Callable[[int], nn.Module]


class Block(nn.Module):
    def __init__(self, width: int, heads: int, act: nn.Module, norm: Norm, bias: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(width), norm(width)
        self.attention = nn.MultiheadAttention(width, heads, bias=bias, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), act, nn.Dropout(0.1), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Patches, positions, blocks and a head; a class token in front, or the mean of all places."""

    def __init__(
        self, image: tuple[int, int, int], patch: int, width: int, heads: int, depth: int, classes: int,
        token: bool = True, act: type[nn.Module] = nn.GELU, norm: Norm = nn.LayerNorm, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        places = (image[1] // patch) * (image[2] // patch)
        self.patches = nn.Conv2d(image[0], width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width)) if token else None
        self.positions = nn.Parameter(torch.randn(1, places + token, width))
        self.blocks = nn.Sequential(*(Block(width, heads, act(), norm, bias) for _ in range(depth)))
        self.norm, self.head = norm(width), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.norm(self.blocks(x + self.positions))
        return self.head(x.mean(1) if self.token is None else x[:, 0])


class Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.conv2, self.norm2 = nn.Conv2d(outside, outside, 3, 1, 1), nn.BatchNorm2d(outside)
        self.act, self.short = act(), nn.Identity()
        if stride != 1 or inside != outside:
            self.short = nn.Sequential(nn.Conv2d(inside, outside, 1, stride), nn.BatchNorm2d(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        y += self.short(x)
        return self.act(y)


class Cnn(nn.Module):
    """A stem and one residual stage for each width."""

    def __init__(
        self, channels: int, widths: tuple[int, ...], classes: int, act: Callable[[], nn.Module] = nn.ReLU,
        pool: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(channels, widths[0], 3, padding=1), nn.BatchNorm2d(widths[0]), act()
        self.pool = pool or nn.Identity()
        pairs = zip((widths[0], *widths[:-1]), widths, strict=True)
        stages = (Residual(a, b, 1 + (number > 0), act) for number, (a, b) in enumerate(pairs))
        self.stages, self.head = nn.Sequential(*stages), nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(self.pool(self.act(self.norm(self.stem(x)))))
        return self.head(x.mean((2, 3)))


def shaken(module: nn.Module, seed: int) -> nn.Module:
    """In evaluation mode with gains, biases and statistics that are not those of a fresh module."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=draws) + 0.5)
            elif tensor.dim() == 1:
                tensor += 0.2 * torch.randn(tensor.shape, generator=draws)
            elif tensor.dim() > 1:
                tensor.copy_(torch.randn(tensor.shape, generator=draws) / tensor[0].numel() ** 0.5)
    return module.eval()


def stripes(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy stripes in four directions: float32 [count, 1, size, size] and their classes."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(4, size=count)
    down, across = np.mgrid[:size, :size]
    along = np.stack([down, across, down + across, down - across])[classes]
    waves = np.sin(along * 2.0 + rng.uniform(0, 6, (count, 1, 1))) + 0.3 * rng.standard_normal(along.shape)
    return waves[:, None].astype(np.float32), classes


def trained(module: nn.Module, size: int, steps: int = 60) -> nn.Module:
    """After some steps of Adam on stripes."""
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    module.train()
    for step in range(steps):
        images, classes = stripes(32, size, step)
        loss = nn.functional.cross_entropy(module(torch.from_numpy(images)), torch.from_numpy(classes))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.eval()


def run(module: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(images)).numpy()
