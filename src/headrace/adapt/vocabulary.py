"""A tokenizer of a few dozen tokens, for models that are trained from scratch."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Core

UNKNOWN, END_OF_TEXT = "<unk>", "<eos>"
END_ID = 1


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`words`: all but the two special tokens. `pattern`: a regular expression whose matches are a text's tokens."""

    words: tuple[str, ...]
    pattern: str

    def __len__(self) -> int:
        return len(self.words) + 2

    def core(self) -> Core:
        """Cuts a text into the pattern's matches; one that is no word becomes <unk>."""
        names = (UNKNOWN, END_OF_TEXT, *self.words)
        core = Core(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token=UNKNOWN))
        core.pre_tokenizer = pre_tokenizers.Split(Regex(self.pattern), "isolated")
        core.decoder = decoders.Fuse()
        core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names[:2]])
        return core
