"""Text to token ids and back, over the `tokenizers` library, with the exact bytes of every token."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tokenizers import Tokenizer as Core

from headrace.model.chat import render_chat
from headrace.model.folder import read_json
from headrace.model.gguf_file import GgufFile
from headrace.spec.errors import HeadraceError, InvalidRequest, ModelFileError

Spelling: TypeAlias = Literal["byte_level", "sentencepiece", "wordpiece", "plain"]
"""How a vocabulary writes bytes: as printable stand-ins, as ▁ and <0x0A>, as ##pieces, or as they are."""

TURN_ENDS = (
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>",
)  # fmt: skip
"""Control tokens that end a turn whatever a file names as its end token."""


class Tokenizer:
    """`vocab`: number of ids. `eos`: every token that ends a text or a turn. Safe to use from any thread."""

    def __init__(
        self,
        core: Core,
        *,
        bos: int | None = None,
        eos: Iterable[int] = (),
        chat_template: str | None = None,
        spelling: Spelling | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        core.no_padding()
        core.no_truncation()
        self._core = core
        self._spelling: Spelling = spelling or _spelling(core)
        self._added = core.get_added_tokens_decoder()
        self._spelled: dict[int, bytes] = {}
        self._control = frozenset(token for token, added in self._added.items() if added.special)
        self._names = dict(names or {})
        self.vocab = core.get_vocab_size(with_added_tokens=True)
        self.bos = bos
        ends = [core.token_to_id(name) for name in TURN_ENDS]
        self.eos = tuple(dict.fromkeys([*eos, *(end for end in ends if end in self._control)]))
        self.chat_template = chat_template

    @classmethod
    def from_gguf(cls, file: GgufFile) -> Tokenizer | None:
        """None where the file has no vocabulary. Raises UnsupportedModel naming an unknown kind."""
        from headrace.model.tokenizer_gguf import build

        if file.metadata.get("tokenizer.ggml.model", "none") in ("none", "no_vocab"):
            return None
        return cls(**build(file))

    @classmethod
    def from_folder(cls, path: Path, config: Mapping[str, Any], generation: Mapping[str, Any]) -> Tokenizer | None:
        """From tokenizer.json with its side files; None where there is no tokenizer.json."""
        if not (path / "tokenizer.json").is_file():
            return None
        try:
            core = Core.from_file(str(path / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise ModelFileError(f"{path / 'tokenizer.json'} cannot be read ({error}); download it again.") from None
        side_file = path / "tokenizer_config.json"
        side = read_json(side_file) if side_file.is_file() else {}
        found = {key: _content(value) for key, value in side.items() if key.endswith("_token")}
        names = {key: name for key, name in found.items() if name is not None}
        eos = [*_ids(generation.get("eos_token_id")), *_ids(config.get("eos_token_id"))]
        if "eos_token" in names:
            eos += _ids(core.token_to_id(names["eos_token"]))
        bos = core.token_to_id(names["bos_token"]) if "bos_token" in names else config.get("bos_token_id")
        return cls(core, bos=bos, eos=eos, chat_template=_folder_template(path, side), names=names)

    def encode(self, text: str, special: bool = True, bos: bool = True) -> list[int]:
        """Token ids. `special`: special tokens written in the text count as such; `bos`: add the tokens
        that the model wants around a text (in front; an encoder's also behind)."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidRequest("The text has broken characters; send valid UTF-8.", "prompt") from None
        core = self._core if special else self._core_without_special
        # Unlike `encode`, `encode_batch` releases the interpreter: a long text must not hold up other threads.
        (encoding,) = core.encode_batch([text], add_special_tokens=bos)
        ids: list[int] = encoding.ids
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of a whole token sequence; bytes that are no character become U+FFFD."""
        if self._spelling in ("wordpiece", "plain"):
            text: str = self._core.decode(list(ids), skip_special_tokens=skip_special)
            return text
        shown = frozenset() if skip_special else self._control
        pieces = (self._special_bytes(token) if token in shown else self.token_bytes(token) for token in ids)
        text = b"".join(pieces).decode("utf-8", "replace")
        return text.removeprefix(" ") if self._prefixed else text

    def token_bytes(self, token: int) -> bytes:
        """The exact bytes the token adds to a running text; b"" for special tokens and unknown ids."""
        spelled = self._spelled.get(token)
        if spelled is None:
            spelled = self._spelled[token] = self._spell(token)
        return spelled

    def _spell(self, token: int) -> bytes:
        if token in self._control:
            return b""
        if token in self._added:
            return self._special_bytes(token)
        name = self._core.id_to_token(token)
        return b"" if name is None else _SPELL[self._spelling](name)

    def token_text(self, token: int) -> str:
        """For display: special tokens by their name, parts of characters with U+FFFD."""
        if token in self._added:
            return str(self._added[token].content)
        return self.token_bytes(token).decode("utf-8", "replace")

    def apply_chat(
        self, messages: Sequence[Mapping[str, Any]], generation_prompt: bool = True, tools: Any = None
    ) -> str:
        """The prompt text of a conversation, by the model's own template.

        Raises HeadraceError where the model has none or where the template refuses the messages.
        """
        if self.chat_template is None:
            raise HeadraceError("This model has no chat template; send a plain prompt instead.")
        return render_chat(self.chat_template, messages, generation_prompt, tools, self._names)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of a conversation up to the assistant's turn.

        A special token written inside a message counts as plain text there, so that no message can end
        its own turn or speak in another role. Raises HeadraceError as `apply_chat` does.
        """
        names = [str(self._added[token].content) for token in self._control]
        unmarked = [_in_strings(message, lambda text: _GUARD_MARKS.sub("", text)) for message in messages]
        written = repr(unmarked)
        found = sorted((name for name in names if repr(name)[1:-1] in written), key=len, reverse=True)
        if not found:
            return self.encode(self.apply_chat(messages), bos=False)
        text = self.apply_chat([_in_strings(message, lambda text: _guarded(text, found)) for message in unmarked])
        ids: list[int] = []
        for index, piece in enumerate(_GUARD.split(text)):
            literal = found[int(piece)] if index % 2 else piece
            ids += self.encode(literal, special=index % 2 == 0, bos=False)
        return ids

    def _special_bytes(self, token: int) -> bytes:
        content: str = self._added[token].content
        return content.replace("▁", " ").encode() if self._spelling == "sentencepiece" else content.encode()

    @cached_property
    def _core_without_special(self) -> Core:
        """A second core that reads special tokens as plain text: the switch is not safe to flip between threads."""
        core = Core.from_str(self._core.to_str())
        core.encode_special_tokens = True
        return core

    @cached_property
    def _prefixed(self) -> bool:
        """Whether encoding puts a space in front of a text, which decoding takes away again."""
        if self._spelling != "sentencepiece":
            return False
        ids = self.encode("a", bos=False)
        return bool(ids) and self.token_bytes(ids[0]).startswith(b" ")


_GUARD = re.compile("\ue000([0-9]+)\ue001")
"""What stands for a special token's name in a message while its template is rendered."""


_GUARD_MARKS = re.compile("[\ue000\ue001]")


def _guarded(text: str, names: Sequence[str]) -> str:
    """`text`, which has no guards, with every name replaced by its guard."""
    for index, name in enumerate(names):
        text = text.replace(name, f"\ue000{index}\ue001")
    return text


def _in_strings(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with every string in it changed, however deep it stands."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _in_strings(part, change) for key, part in value.items()}
    return [_in_strings(part, change) for part in value] if isinstance(value, list | tuple) else value


def _spelling(core: Core) -> Spelling:
    state = core.decoder.__getstate__().decode() if core.decoder is not None else ""
    if '"ByteLevel"' in state:
        return "byte_level"
    if '"WordPiece"' in state:
        return "wordpiece"
    return "sentencepiece" if "▁" in json.loads(f"[{state or 0}]").__repr__() else "plain"


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's stand-ins: printable bytes are themselves, the others the characters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _byte_alphabet()


def _byte_level(name: str) -> bytes:
    try:
        return bytes(map(_BYTES.__getitem__, name))
    except KeyError:
        return name.encode()


def _sentencepiece(name: str) -> bytes:
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace("▁", " ").encode()


def _wordpiece(name: str) -> bytes:
    return name[2:].encode() if name.startswith("##") else b" " + name.encode()


_SPELL: dict[Spelling, Callable[[str], bytes]] = {
    "byte_level": _byte_level,
    "sentencepiece": _sentencepiece,
    "wordpiece": _wordpiece,
    "plain": str.encode,
}


def _ids(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(item) for item in value] if isinstance(value, list) else [int(value)]


def _content(value: Any) -> str | None:
    """A special token's text, which tokenizer_config.json gives plain or as an object."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _folder_template(path: Path, side: Mapping[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template = side.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None
