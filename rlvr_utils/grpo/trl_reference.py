"""TRL's own GRPO loss on toy tensors: ``GRPOTrainer._compute_loss`` run without a model or a trainer.

The method reads a few attributes of its trainer and calls it once for log-probabilities. A small stub supplies
both. This uses TRL's internals on purpose, to compare with the code that trains.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from types import SimpleNamespace

import torch
from trl import GRPOConfig, GRPOTrainer

DEFAULTS = {field.name: field.default for field in dataclasses.fields(GRPOConfig)}
#: Fields of the trainer's configuration that the loss reads.
OF_CONFIG = ("use_bias_correction_kl", "delta", "sapo_temperature_pos", "sapo_temperature_neg")
OF_CONFIG += ("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg")
CONFIG_DEFAULTS = {name: DEFAULTS[name] for name in OF_CONFIG} | {"steps_per_generation": 1}
#: What it reads from the trainer itself: under the configuration's names, and what the trainer derives from it.
OF_TRAINER = ("loss_type", "beta", "importance_sampling_level", "top_entropy_quantile", "off_policy_mask_threshold")
TRAINER_DEFAULTS = {name: DEFAULTS[name] for name in (*OF_TRAINER, "entropy_coef", "use_vllm")} | {
    "epsilon_low": DEFAULTS["epsilon"],
    "epsilon_high": DEFAULTS["epsilon"],
    "max_completion_length": None,
    "current_gradient_accumulation_steps": 1,
    "num_processes": 1,
}


def _trainer_stub(settings: dict, logps: torch.Tensor, entropies: torch.Tensor) -> SimpleNamespace:
    """What ``_compute_loss`` reads from its trainer."""
    accelerator = SimpleNamespace(
        num_processes=settings.pop("num_processes"),
        gather=lambda x: x,
        reduce=lambda x, reduction: x,
        pad_across_processes=lambda x, dim, pad_index: x,
        sync_gradients=True,
    )
    stub = SimpleNamespace(
        **settings,
        accelerator=accelerator,
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        vllm_importance_sampling_correction=settings["use_vllm"],
        use_adaptive_entropy=False,
        _entropy_bonus_enabled=settings["entropy_coef"] != 0,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (logps, entropies, None),
        get_gamma_weights=GRPOTrainer.get_gamma_weights,
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
    )
    stub.get_high_entropy_mask = lambda *args: GRPOTrainer.get_high_entropy_mask(stub, *args)
    return stub


def trl_loss(
    logps: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    entropies: torch.Tensor | None = None,
    inputs: dict | None = None,
    **settings,
) -> tuple[torch.Tensor, dict[str, float]]:
    """TRL's loss and the metrics it logged.

    Args:
        logps, mask: ``(B, T)``; advantages: ``(B,)``; entropies: ``(B, T)``, ones by default.
        inputs: further tensors of the batch under TRL's names (``old_per_token_logps``, ...).
        settings: of the trainer or its config, under TRL's names.
    """
    config = {key: settings.pop(key, default) for key, default in CONFIG_DEFAULTS.items()}
    unknown = set(settings) - set(TRAINER_DEFAULTS)
    if unknown:
        raise TypeError(f"the stub has no such option: {sorted(unknown)}")
    entropies = torch.ones_like(logps) if entropies is None else entropies
    stub = _trainer_stub({**TRAINER_DEFAULTS, **settings}, logps, entropies)
    stub.args = SimpleNamespace(**config)
    ids = torch.zeros(mask.shape, dtype=torch.long)
    batch = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": torch.ones_like(ids[:, :1]),
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": advantages,
        "num_items_in_batch": mask.sum(),
        **(inputs or {}),
    }
    loss = GRPOTrainer._compute_loss(stub, None, batch)
    return loss, {name: values[0] for name, values in stub._metrics["train"].items()}
