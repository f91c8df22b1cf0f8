"""The table of weight types is the one of the `gguf` package, and opening a file does without that package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from headrace.model.ggml_types import BLOCKS, NAMES


def test_the_table_is_that_of_gguf() -> None:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    theirs = {int(kind): (kind.name, GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType}
    ours = {number: (name, BLOCKS[name]) for number, name in NAMES.items()}
    assert ours == {number: theirs.get(number) for number in ours}
    known = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F32", "F16", "BF16"}
    assert known <= BLOCKS.keys()


def test_a_model_opens_without_gguf(smollm2: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from headrace.model.loading import load_model;"
        "from headrace.spec.ledger import Ledger; load_model(Path(sys.argv[1]), Ledger(None), None);"
        "print('gguf' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(smollm2)], capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr
