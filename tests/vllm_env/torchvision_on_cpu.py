"""Lets a CUDA-built torchvision import beside a CPU torch: only where vLLM is tested on a CPU.

torchvision's Python code registers fake kernels for operators that its compiled half would have
declared. Declaring their schemas first is enough for image processors, which never call them.
"""

import importlib.abc
import sys

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class DeclareFirst(importlib.abc.MetaPathFinder):
    """Declares the missing operators when torchvision is first looked for, then steps aside."""

    library = None

    def find_spec(self, name, path=None, target=None):
        """Find nothing: other finders load the module."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            DeclareFirst.library = torch.library.Library("torchvision", "DEF")
            for schema in SCHEMAS:
                DeclareFirst.library.define(schema)


sys.meta_path.insert(0, DeclareFirst())
