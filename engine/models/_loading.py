"""Opens a checkpoint: config, family, processor, weights. Everything heavy starts here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import hub
from engine.diagnostics import StageError
from engine.models import ModelFamily, family_of
from engine.models._chat import ChatFormat, control_tokens
from engine.models._processors import open_processor

_ORIGINAL = "if it is in the layout of the original LLaVA code, add `layout: llava` to the recipe"


@dataclass(frozen=True, slots=True)
class ModelKit:
    """A checkpoint without its weights."""

    path: str
    revision: str | None
    trust_remote_code: bool
    family: ModelFamily
    config: Any
    processor: Any  # the tokenizer itself for a text-only family
    tokenizer: Any
    chat: ChatFormat
    image_marker: str | None

    @property
    def image_token_id(self) -> int:
        """Return the id of the tokens that stand for an image in the input; -1 without vision.

        In some families it is another one than the marker that templates write.
        """
        if self.image_marker is None:
            return -1
        token = getattr(self.tokenizer, "image_token", None) if self.family.has_own_token else None
        return int(self.tokenizer.convert_tokens_to_ids(token or self.image_marker))

    @property
    def text_config(self) -> Any:
        """Return the config of the language part."""
        return self.config.get_text_config()

    @property
    def context_tokens(self) -> int:
        """Return how many tokens the model can hold."""
        return int(getattr(self.text_config, "max_position_embeddings", None) or 2**30)

    @property
    def pad_id(self) -> int:
        """Return the id that fills batches; any will do, as it is masked."""
        found = self.tokenizer.pad_token_id
        return int(found if found is not None else self.tokenizer.eos_token_id or 0)


def open_kit(path: str, revision: str | None = None, trust_remote_code: bool = False) -> ModelKit:
    """Open a folder or hub id without loading weights. Raise StageError if it is no known model."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = transformers.AutoConfig.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        raise _cannot_open(path, revision, error) from error
    if hasattr(config, "mm_vision_tower"):
        raise StageError(f"the model `{path}` is an original LLaVA", hint=_ORIGINAL)
    family = family_of(config.model_type, path)
    try:
        if family.has_vision:
            processor = open_processor(path, config.model_type, options)
        else:
            processor = transformers.AutoTokenizer.from_pretrained(path, **options)
    except (OSError, ValueError, ImportError) as error:
        raise StageError(f"the processor of `{path}` cannot be opened: {error}") from error
    tokenizer = processor.tokenizer if family.has_vision else processor
    if not any(getattr(one, "chat_template", None) for one in (processor, tokenizer)):
        processor.chat_template = family.chat_template or None  # saved with what is trained on it
    marker = _image_marker(processor) if family.has_vision else None
    eos = tokenizer.eos_token or ""
    control = control_tokens(tokenizer, marker)
    chat = ChatFormat(processor, marker, eos, control)
    if not chat.has_template and getattr(tokenizer, "chat_template", None):
        chat = ChatFormat(tokenizer, marker, eos, control)
    return ModelKit(
        path, revision, trust_remote_code, family, config, processor, tokenizer, chat, marker
    )


def _cannot_open(path: str, revision: str | None, error: Exception) -> StageError:
    """Return why there is no config: by the hub's word, by its type, or as transformers says."""
    if isinstance(error, OSError) and not Path(path).is_dir():
        refused = hub.refusal("model", path, revision)
        if refused is not None:
            return refused
    about, message = ("model", path), f"the model `{path}` cannot be opened: {error}"
    if "`llava_" in str(error):
        return StageError(message, hint=_ORIGINAL, about=about)
    if isinstance(error, ValueError):
        try:
            family_of(_written_type(path, revision), path)
        except StageError as unknown:
            return unknown
    return StageError(message, about=about)


def _written_type(path: str, revision: str | None) -> str:
    """Return the type that a config says, though transformers does not know it."""
    import transformers

    config, _ = transformers.PreTrainedConfig.get_config_dict(path, revision=revision)
    return str(config.get("model_type", ""))


def load_weights(kit: ModelKit, *, dtype: Any, device: str) -> Any:
    """Load the checkpoint's weights."""
    import transformers

    auto_class = getattr(transformers, kit.family.auto_class)
    try:
        model = auto_class.from_pretrained(
            kit.path,
            revision=kit.revision,
            trust_remote_code=kit.trust_remote_code,
            dtype=dtype,
        )
    except OSError as error:
        why = f"the weights of `{kit.path}` cannot be loaded: {_first_cause(error)}"
        raise StageError(why) from error
    return model.to(device)


def random_weights(kit: ModelKit, *, seed: int, device: str) -> Any:
    """Build the model from its config alone, in float32; equal seeds give equal weights."""
    import torch
    import transformers

    auto_class = getattr(transformers, kit.family.auto_class)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto_class.from_config(
            kit.config, trust_remote_code=kit.trust_remote_code, dtype=torch.float32
        )
    return model.to(device)


def _first_cause(error: BaseException) -> BaseException:
    """Return what an error began with; half a download ends as a missing file otherwise."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _image_marker(processor: Any) -> str:
    marker = getattr(processor, "image_token", None)
    if marker is None:
        raise StageError("the processor names no image token")
    return str(getattr(marker, "content", marker))
