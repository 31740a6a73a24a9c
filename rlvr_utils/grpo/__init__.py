"""GRPO on tensors, in plain PyTorch: no trainer and no tokenizer.

Read in this order, which is also the order of a training step:

1. :mod:`.advantages`  rewards of a group -> how much better than its group each response was
2. :mod:`.logprobs`    logits -> log-probability of each sampled token, entropy of each position, which tokens count
3. :mod:`.ratio`       new policy against the one that sampled, and the policy term of each loss type
4. :mod:`.loss`        ``grpo_loss``: term, masks, KL, and how tokens and sequences are added up

Shapes throughout: ``B`` responses (rows), ``T`` token positions (right-padded), ``V`` vocabulary entries,
``N`` rewards, ``G`` responses per group. Log-probabilities and entropies are in nats. Every formula, keyword
and default follows ``GRPOTrainer`` of TRL 1.16 (``trl/trainer/grpo_trainer.py``), and the tests check that
both give the same numbers.
"""

from .advantages import group_advantages
from .logprobs import completion_logits, completion_mask, entropy, selected_logps
from .loss import LOSS_TYPES, aggregate, grpo_loss, high_entropy_mask, kl_k3, kl_k3_expm1, off_policy_mask
from .ratio import cispo_term, clip_fractions, clipped_term, importance_ratio, sapo_term, vespo_weight
