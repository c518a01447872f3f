"""TensorBoard: event files in the folder of the run, for `tensorboard --logdir .adapt/runs`.

Written by TensorBoard's own writer: PyTorch's would load PyTorch, beside a run that needs the
memory for itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from engine.cli.trackers import About


class TensorBoard:
    """Writes scalars."""

    def __init__(self, about: About) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer: Any = EventFileWriter(str(about.folder), flush_secs=10)
        self._write(self._text("run", json.dumps(about.facts, indent=1, default=str)), 0)

    def log(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write numbers."""
        found = [
            self._summary.Value(tag=f"{group}/{name}", simple_value=value)
            for name, value in values.items()
        ]
        self._write(found, step)

    def close(self, *, has_failed: bool) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, values: list[Any], step: int) -> None:
        summary = self._summary(value=values)
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def _text(self, tag: str, text: str) -> list[Any]:
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.plugins.text.metadata import create_summary_metadata

        shown = "    " + text.replace("\n", "\n    ")  # indented: shown as it is
        tensor = TensorProto(
            dtype="DT_STRING", string_val=[shown.encode()], tensor_shape=TensorShapeProto()
        )
        metadata = create_summary_metadata(display_name="", description="")
        return [self._summary.Value(tag=tag, metadata=metadata, tensor=tensor)]


def open_tracker(about: About) -> TensorBoard:
    """Open the event file of a run."""
    return TensorBoard(about)
