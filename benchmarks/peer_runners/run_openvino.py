"""OpenVINO GenAI: continuous batching over a GGUF file, driven step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
from protocol import Settings, Stepper, serve

STEP_TOKENS = 2048


class OpenVino(Stepper):
    """Prefix caching is on, so decode cells find their prompts; KV type and precision are the plugin's choice."""

    def __init__(self, settings: Settings) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = max(settings.cache_mib // 1024, 1)  # GiB
        scheduler.max_num_seqs = max(settings.rows, 16)
        scheduler.max_num_batched_tokens = STEP_TOKENS
        scheduler.enable_prefix_caching = True
        scheduler.dynamic_split_fuse = True
        properties = {"INFERENCE_NUM_THREADS": settings.threads}
        self.pipe = genai.ContinuousBatchingPipeline(settings.model, scheduler, "CPU", properties)
        self.version, self.weights = genai.__version__, "as in the file"
        self._open: dict[int, Any] = {}
        self._have: dict[int, int] = {}
        self._next = 0

    def add(self, row: int, prompt: list[int], new: int) -> None:
        config = genai.GenerationConfig(max_new_tokens=new, min_new_tokens=new, ignore_eos=True, do_sample=False)
        ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
        self._open[row], self._have[row] = self.pipe.add_request(self._next, ids, config), 0
        self._next += 1

    def step(self) -> dict[int, int]:
        self.pipe.step()
        got = {}
        for row, handle in list(self._open.items()):
            while handle.can_read():
                self._have[row] += sum(len(output.generated_ids) for output in handle.read().values())
                got[row] = self._have[row]
            if str(handle.get_status()).endswith("FINISHED"):
                del self._open[row]
        return got


if __name__ == "__main__":
    serve(OpenVino)
