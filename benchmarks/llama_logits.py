"""llama.cpp's logits at every position, for accuracy.py; runs in llama-cpp-python's own environment.

    python llama_logits.py MODEL.gguf SETTINGS_JSON

SETTINGS are arguments of `llama_cpp.Llama`. Prints one line of JSON about itself; then, for each line of
JSON token ids, writes float32 logits [tokens, vocab], raw.
"""

from __future__ import annotations

import json
import os
import sys
from typing import BinaryIO

import llama_cpp


def serve(llama: llama_cpp.Llama, out: BinaryIO) -> None:
    for line in sys.stdin:
        tokens = json.loads(line)
        llama.reset()
        llama.eval(tokens)
        out.write(llama.scores[: len(tokens)].tobytes())
        out.flush()


def main() -> None:
    path, settings = sys.argv[1], json.loads(sys.argv[2])
    # The library may print where it likes; only this program writes to the pipe.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        llama = llama_cpp.Llama(path, logits_all=True, verbose=False, **settings)
        about = {
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "system": llama_cpp.llama_print_system_info().decode().strip(),
            "vocab": llama.n_vocab(),
        }
        out.write(json.dumps(about).encode() + b"\n")
        out.flush()
        serve(llama, out)


if __name__ == "__main__":
    main()
