"""Will it fit, what to change when it does not, and how long at least: for any profile, before any hour is paid for.

``estimate`` counts the bytes of every part, ``plan`` makes a run fit a GPU, ``least_seconds`` bounds its time, and
``peak_memory`` measures what is really taken, which is what the estimate is tested against.
"""

from .advice import GPUS, Machine, Plan, hours, least_seconds, next_change, plan
from .estimate import (
    DTYPE_BYTES,
    GIB,
    PARTS,
    PHASES,
    MemoryEstimate,
    Workload,
    estimate,
    full_logits_bytes,
    kv_bytes_per_token,
    parameter_count,
    saved_per_token,
    vllm_utilization,
)
from .measure import Measured, measure_update, peak_memory, trial_generation, trial_update

__all__ = [
    "DTYPE_BYTES", "GIB", "GPUS", "PARTS", "PHASES", "MemoryEstimate", "Workload", "Machine", "Measured", "Plan",
    "estimate", "full_logits_bytes", "hours", "kv_bytes_per_token", "least_seconds", "measure_update",
    "next_change", "parameter_count", "peak_memory", "plan", "saved_per_token", "trial_generation",
    "trial_update", "vllm_utilization",
]
