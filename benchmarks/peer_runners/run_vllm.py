"""vLLM's CPU engine in this process: bf16 weights, compiled, prefix caching on, driven step by step."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_AOT_COMPILE": "0",  # its files do not load again here; the compile cache itself does
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}
PRELOADED = (Path(sys.prefix) / "lib/libiomp5.so", Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"))


def preload() -> None:
    """vLLM's manual asks for Intel's OpenMP and tcmalloc ahead of all others; a fresh start of this script has them."""
    found = ":".join(str(path) for path in PRELOADED if path.exists())
    if found and "LD_PRELOAD" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"LD_PRELOAD": found})


if __name__ == "__main__":
    preload()

from protocol import Settings, Stepper, serve  # noqa: E402
from vllm import EngineArgs, LLMEngine, SamplingParams, __version__  # noqa: E402


class Vllm(Stepper):
    def __init__(self, settings: Settings) -> None:
        cores = sorted(os.sched_getaffinity(0))[: settings.threads]
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(max(settings.cache_mib // 1024, 1))  # GiB
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
        self.engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=settings.model,
                dtype="bfloat16",
                skip_tokenizer_init=True,
                max_model_len=settings.length,
                max_num_seqs=max(settings.rows, 16),
                max_num_batched_tokens=max(4096, settings.length),
                enable_prefix_caching=True,
            )
        )
        self.version, self.weights = __version__, "bf16, dequantised from the file"
        self._requests = 0
        self._rows: dict[str, int] = {}

    def add(self, row: int, prompt: list[int], new: int) -> None:
        name, self._requests = str(self._requests), self._requests + 1
        self._rows[name] = row
        params = SamplingParams(temperature=0, max_tokens=new, min_tokens=new, ignore_eos=True, detokenize=False)
        self.engine.add_request(name, {"prompt_token_ids": prompt}, params)

    def step(self) -> dict[int, int]:
        got = {}
        for output in self.engine.step():
            got[self._rows[output.request_id]] = len(output.outputs[0].token_ids)
            if output.finished:
                del self._rows[output.request_id]
        return got


if __name__ == "__main__":
    serve(Vllm)
