"""Opens the processor of an MLLM, with or without torchvision.

Images are prepared by PIL, whether torchvision is installed or not: its resizing gives other
pixels, and a result must not depend on a package that happens to be there. Families that also see
videos have a processor for those that exists for torchvision alone. No recipe shows videos, so a
stand-in keeps its settings and refuses work.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROCESSORS = {  # model_type -> processor class, of families that see videos
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "internvl": "InternVLProcessor",
    "smolvlm": "SmolVLMProcessor",
}
_VIDEO_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")


def open_processor(path: str, model_type: str, options: Mapping[str, Any]) -> Any:
    """Return the processor of a folder or hub id. Raise OSError or ValueError if there is none."""
    import transformers

    name = PROCESSORS.get(model_type)
    if name is None:
        return transformers.AutoProcessor.from_pretrained(path, backend="pil", **options)
    return without_videos(path, getattr(transformers, name), options)


def without_videos(path: str, kind: Any, options: Mapping[str, Any]) -> Any:
    """Build a processor from its parts, with a stand-in for the one of videos."""
    import transformers

    settings, _ = kind.get_processor_dict(path, **options)
    known = inspect.signature(kind.__init__).parameters
    parts = ("image_processor", "tokenizer", "video_processor")
    rest = {k: v for k, v in settings.items() if k in known and k not in parts}
    image_processor = transformers.AutoImageProcessor.from_pretrained(
        path, backend="pil", **options
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
    videos = _stand_in(_video_settings(path, settings, options))
    # The class checks that its parts are of transformers' own; its name stays, for it is saved.
    lenient = type(kind.__name__, (kind,), {"check_argument_for_proper_class": _accept})
    return lenient(image_processor, tokenizer, videos, **rest)


def _accept(self: Any, argument_name: str, argument: Any) -> Any:
    return type(argument)


def _stand_in(settings: Mapping[str, Any]) -> Any:
    from transformers.utils import PushToHubMixin

    class Videos(PushToHubMixin):  # type: ignore[misc]  # what a processor saves by `to_dict`
        """Keeps the settings of a video processor."""

        _auto_class = None
        model_input_names = ()

        def to_dict(self) -> dict[str, Any]:
            return dict(settings)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            return settings.get(name)

        def __call__(self, *_: object, **__: object) -> Any:
            raise ValueError("no recipe shows videos")

    return Videos()


def _video_settings(
    path: str, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the checkpoint says of videos, as it is."""
    from transformers.utils import cached_file

    if isinstance(settings.get("video_processor"), Mapping):
        return dict(settings["video_processor"])
    revision = options.get("revision")
    for name in _VIDEO_FILES:
        found = cached_file(
            path, name, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        if found is not None:
            return dict(json.loads(Path(found).read_text(encoding="utf-8")))
    return {}
