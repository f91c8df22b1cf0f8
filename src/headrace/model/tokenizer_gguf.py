"""A tokenizer from GGUF metadata: byte-level BPE, SentencePiece BPE and WordPiece.

The pre-tokenizer patterns are those of the models' own published tokenizers, by the name that
`tokenizer.ggml.pre` gives them. A GGUF file says nothing of composing characters (NFC), which Qwen's
published tokenizer.json does: text is taken as it is, as llama.cpp takes it.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Core

from headrace.model.gguf_file import GgufFile
from headrace.spec.errors import ModelFileError, UnsupportedModel

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_GPT2 = _CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _cl100k(digits: str) -> str:
    return (
        rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


def _cased(ending: str, digits: str) -> str:
    """Words split where their case changes; `ending`: contractions kept with their word or not."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    return (
        rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{ending}|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{ending}|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_PATTERNS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("gpt-2", "phi-2", "jina-es", "jina-de", "mpt", "olmo", "jais", "trillion"): (_GPT2,),
    ("smollm", "starcoder", "refact", "command-r", "codeshell"): (r"\p{N}", _GPT2),
    ("llama3", "llama-v3", "llama-bpe", "dbrx", "smaug-bpe", "falcon3"): (_cl100k(r"\p{N}{1,3}"),),
    ("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"): (_cl100k(r"\p{N}"),),
    ("gpt-4o", "llama4"): (_cased(rf"(?i:{_CONTRACTIONS})?", r"\p{N}{1,3}"),),
    ("tekken",): (_cased("", r"\p{N}"),),
    ("default",): (
        r"[\p{P}\$\+<=>\^~\|]+",
        _CONTRACTIONS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        r"\p{N}+",
        "[0-9][0-9][0-9]",
    ),
}
_SPLITS = {name: patterns for names, patterns in _PATTERNS.items() for name in names}
_IGNORE_MERGES = {"llama3", "llama-v3", "llama-bpe", "tekken", "gpt-4o", "llama4", "falcon3"}
"""A piece that is a token by itself is not merged step by step."""
_BOS_BY_DEFAULT = {"llama3", "llama-v3", "llama-bpe", "tekken"}


class _Fields:
    """The tokenizer's part of the metadata."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.tokens: list[str] = file.need("tokenizer.ggml.tokens")
        self.types: list[int] = self.get("token_type") or [1] * len(self.tokens)
        if len(self.types) != len(self.tokens):
            raise ModelFileError(f"{file.path.name} has token types that do not fit its tokens; convert it again.")
        self.pre = str(self.get("pre") or "default")

    def get(self, key: str) -> Any:
        return self.file.metadata.get(f"tokenizer.ggml.{key}")

    def token(self, key: str) -> int | None:
        """A special token's id, None where the file names none or one outside the vocabulary."""
        found = self.get(f"{key}_token_id")
        return int(found) if found is not None and 0 <= int(found) < len(self.tokens) else None

    def vocabulary(self) -> dict[str, int]:
        """Token -> id; a name that stands twice keeps its first id."""
        found: dict[str, int] = {}
        for index, token in enumerate(self.tokens):
            found.setdefault(token, index)
        return found


def build(file: GgufFile) -> dict[str, Any]:
    """Arguments of `Tokenizer`. Raises UnsupportedModel naming an unknown model or pre-tokenizer."""
    fields = _Fields(file)
    kind = str(file.need("tokenizer.ggml.model"))
    makers = {"gpt2": _byte_level, "llama": _sentencepiece, "bert": _wordpiece}
    if kind not in makers:
        raise UnsupportedModel(
            f"{file.path.name} has a tokenizer of kind {kind!r}; supported are {', '.join(sorted(makers))}, or give a"
            " model folder with tokenizer.json."
        )
    core = makers[kind](fields)
    _add_special(core, fields)
    _add_around(core, fields, kind)
    eos = [fields.token(key) for key in ("eos", "eot", "eom")]
    bos = fields.token("bos")
    names = {"bos_token": bos, "eos_token": fields.token("eos"), "pad_token": fields.token("padding")}
    return {
        "core": core,
        "bos": bos,
        "eos": [token for token in eos if token is not None],
        "chat_template": file.metadata.get("tokenizer.chat_template"),
        "spelling": {"gpt2": "byte_level", "llama": "sentencepiece", "bert": "wordpiece"}[kind],
        "names": {key: fields.tokens[token] for key, token in names.items() if token is not None},
    }


def _byte_level(fields: _Fields) -> Core:
    if fields.pre not in _SPLITS:
        raise UnsupportedModel(
            f"{fields.file.path.name} sets tokenizer.ggml.pre to {fields.pre!r}, which is unknown; give a model"
            " folder with tokenizer.json."
        )
    core = Core(_byte_pairs(fields))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in _SPLITS[fields.pre]]
    core.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    return core


def _byte_pairs(fields: _Fields) -> models.BPE:
    """Merges of tokens that the vocabulary lacks, or with a space within, are rare, and looking takes time."""
    merges: list[str] = fields.file.need("tokenizer.ggml.merges")
    vocabulary, whole = fields.vocabulary(), fields.pre in _IGNORE_MERGES
    halves: list[Any] = [tuple(merge.split(" ")) for merge in merges]
    try:
        return models.BPE(vocabulary, halves, ignore_merges=whole)
    except Exception:  # the library raises bare Exception
        known = vocabulary.__contains__
        pairs = map(_pair, merges)
        usable = [(left, right) for left, right in pairs if known(left) and known(right) and known(left + right)]
        return models.BPE(vocabulary, usable, ignore_merges=whole)


def _pair(merge: str) -> tuple[str, str]:
    """Both halves; the first may not be empty, so that the separating space is looked for behind it."""
    left, _, right = merge[1:].partition(" ")
    return merge[:1] + left, right


def _sentencepiece(fields: _Fields) -> Core:
    scores: list[float] = fields.get("scores") or [0.0] * len(fields.tokens)
    vocabulary = fields.vocabulary()
    unknown = fields.token("unknown")
    core = Core(
        models.BPE(
            vocabulary,
            _merges_by_score(fields, vocabulary, scores),
            unk_token=fields.tokens[unknown] if unknown is not None else None,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps: list[Any] = [normalizers.Replace(" ", "▁")]
    prefix = fields.get("add_space_prefix")
    if prefix is None or prefix:
        steps.insert(0, normalizers.Prepend("▁"))
    core.normalizer = normalizers.Sequence(steps)
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return core


def _merges_by_score(fields: _Fields, vocabulary: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """SentencePiece joins whichever neighbours make the best-scored token: every split of each, best first."""
    order = sorted(range(len(fields.tokens)), key=lambda i: (-scores[i], i))
    types, tokens, known = fields.types, fields.tokens, vocabulary.__contains__
    merges: list[tuple[str, str]] = []
    for index in order:
        token = tokens[index]
        if types[index] in (_UNKNOWN, _CONTROL, _UNUSED, 6):
            continue
        for cut in range(1, len(token)):
            left = token[:cut]
            if known(left) and known(right := token[cut:]):
                merges.append((left, right))
    return merges


def _wordpiece(fields: _Fields) -> Core:
    """GGUF marks the start of a word; published vocabularies mark its continuation."""

    def published(index: int, token: str) -> str:
        if token.startswith("▁"):
            return token[1:]
        whole = fields.types[index] != 1 or (token.startswith("[") and token.endswith("]"))
        return token if whole else f"##{token}"

    fields.tokens = [published(index, token) for index, token in enumerate(fields.tokens)]
    unknown = fields.token("unknown")
    name = fields.tokens[unknown] if unknown is not None else "[UNK]"
    core = Core(models.WordPiece(fields.vocabulary(), unk_token=name, max_input_chars_per_word=100))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    return core


def _add_special(core: Core, fields: _Fields) -> None:
    added = []
    for token, kind in zip(fields.tokens, fields.types, strict=True):
        if token and kind in (_CONTROL, _UNKNOWN, _USER_DEFINED):
            added.append(AddedToken(token, special=kind != _USER_DEFINED, normalized=False))
    core.add_tokens(added)


def _add_around(core: Core, fields: _Fields, kind: str) -> None:
    """What stands in front of a text and behind it, where the file or its kind asks for it."""
    front = fields.get("add_bos_token")
    front = kind != "gpt2" or fields.pre in _BOS_BY_DEFAULT if front is None else front
    behind = fields.get("add_eos_token")
    behind = kind == "bert" if behind is None else behind
    first = fields.token("bos") if fields.token("bos") is not None else fields.token("cls")
    last = fields.token("eos") if kind != "bert" else _separator(fields)
    before = [first] if front and first is not None else []
    after = [last] if behind and last is not None else []
    if before or after:
        names = {token: f"T{token}" for token in (*before, *after)}
        core.post_processor = processors.TemplateProcessing(
            single=[*(names[t] for t in before), "$A", *(names[t] for t in after)],
            special_tokens=[(name, token) for token, name in names.items()],
        )


def _separator(fields: _Fields) -> int | None:
    """The key is misspelt in the format itself; both spellings are found."""
    found = fields.token("seperator")
    return found if found is not None else fields.token("separator")
