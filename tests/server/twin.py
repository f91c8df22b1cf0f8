"""A tiny random llama with a byte-level tokenizer, its engine, and a real server on the loopback."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from headrace.engine.engine import Engine
from headrace.privacy.veil.notice import Notice
from headrace.server.app import create_app
from headrace.server.config import ServerConfig

SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' and m.content == 'refuse me' %}"
    "{{ raise_exception('this template refuses') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 512
VOCAB = 320


def write_tokenizer(folder: Path) -> None:
    """256 bytes and four special tokens, without merges; ids from 260 to 319 have no piece."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces = {piece: i for i, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=pieces, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    core.save(str(folder / "tokenizer.json"))
    side = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(side))


def write_twin(folder: Path, tokenizer: bool = True) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=256,
        eos_token_id=257,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    if tokenizer:
        write_tokenizer(folder)
    return folder


def write_adapter_of(model: Path, folder: Path, seed: int = 1) -> Path:
    """A random LoRA adapter of the twin in PEFT's files."""
    from transformers import LlamaForCausalLM

    from model.lora import random_matrices, write_adapter

    twin = LlamaForCausalLM.from_pretrained(model)
    matrices = {name: (a, 4 * b) for name, (a, b) in random_matrices(twin, seed).items()}
    return write_adapter(folder, matrices)


@contextmanager
def serving(
    engine: Engine,
    config: ServerConfig | None = None,
    embedder: Engine | None = None,
    notice: Notice | None = None,
    port: int = 0,
) -> Iterator[str]:
    """A uvicorn server in a thread; its URL."""
    with on_loopback(create_app(engine, config or ServerConfig(model_name="twin"), embedder, notice), port) as url:
        yield url


@contextmanager
def on_loopback(app: Any, port: int = 0) -> Iterator[str]:
    """An ASGI app behind uvicorn in a thread; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Gives up after a time that no healthy run comes near."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.005)
