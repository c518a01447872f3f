"""What a few named GPUs can do, from the data sheets of their vendor.

Rates are dense: NVIDIA prints twice as much for 2:4 sparse matrices. Prices are not shipped.
"""

from __future__ import annotations

from typing import NamedTuple

TRAINING_SHARE = 0.30  # of the peak rate; METHOD 4.2: 0.2 to 0.4 on eight A100 for three models
PREFILL_SHARE = 0.40
DECODING_SHARE = 0.50  # of the memory bandwidth


class Device(NamedTuple):
    """One GPU."""

    name: str
    title: str
    memory_gb: float
    half_tflops: float  # bfloat16 on tensor cores, float32 sums
    float_tflops: float  # TensorFloat-32 on tensor cores
    bandwidth_gb_s: float
    source: str


_SHEET = "NVIDIA data sheet"
DEVICES = {
    device.name: device
    for device in (
        Device("h200", "H200 SXM 141 GB", 141, 989, 494, 4800, f"{_SHEET} H200"),
        Device("h100", "H100 SXM 80 GB", 80, 989, 494, 3350, f"{_SHEET} H100"),
        Device("a100", "A100 SXM 80 GB", 80, 312, 156, 2039, f"{_SHEET} A100"),
        Device("a100-40gb", "A100 SXM 40 GB", 40, 312, 156, 1555, f"{_SHEET} A100"),
        Device("l40s", "L40S 48 GB", 48, 362, 183, 864, f"{_SHEET} L40S"),
        Device("a10", "A10 24 GB", 24, 125, 62.5, 600, f"{_SHEET} A10"),
        Device("l4", "L4 24 GB", 24, 121, 60, 300, f"{_SHEET} L4"),
        Device("rtx4090", "RTX 4090 24 GB", 24, 165.2, 82.6, 1008, "NVIDIA Ada architecture paper"),
    )
}
