"""Writes a GGUF file as a bf16 Hugging Face folder, for peers that do not read GGUF: dequantise.py GGUF FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(source: Path, folder: Path) -> None:
    """Dequantises in fp32 and rounds once to bf16."""
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).to(torch.bfloat16)
    model.hf_quantizer = None  # the weights are plain by now
    for record in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, record):
            delattr(model.config, record)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
