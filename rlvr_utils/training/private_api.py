"""The private names of libraries that the training needs. Another version may move them without a word.

:func:`refuse_moved_names` looks before a trainer is built, so that an untested version costs a sentence and no GPU time.
``tests/test_house.py`` finds every private name in the code and compares it with this list.
"""

from __future__ import annotations

import inspect
from importlib import metadata

from transformers import PreTrainedModel, Trainer
from trl import GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration

#: (owner, name, what needs it). A name that is no attribute of the class is one that its methods set.
PRIVATE = (
    (GRPOTrainer, "_get_per_token_logps_and_entropies", "sharing: the shared prefix, no gradient for zero advantages"),
    (GRPOTrainer, "_prepare_inputs", "sharing: responses to one prompt side by side"),
    (GRPOTrainer, "_buffered_inputs", "sharing: the micro-batches of a generation"),
    (GRPOTrainer, "_step", "sharing: which micro-batch comes next"),
    (GRPOTrainer, "_compute_loss", "sharing: advantages of the micro-batch; grpo.trl_reference: TRL's own loss"),
    (GRPOTrainer, "_entropy_bonus_enabled", "sharing: with it, zero advantages have a gradient"),
    (GRPOTrainer, "_metrics", "grpo.trl_reference: what TRL logs"),
    (Trainer, "_load_from_checkpoint", "run: the best and the last checkpoint's weights"),
    (VLLMGeneration, "_iter_named_params", "weight_sync: which weights vLLM receives"),
    (VLLMGeneration, "_fix_param_name_to_vllm", "weight_sync: how vLLM calls them"),
    (PreTrainedModel, "_supports_attention_backend", "shared_prefix: whether attention can be exchanged"),
    (PreTrainedModel, "_attn_implementation", "shared_prefix: which attention a model had before"),
)


def refuse_moved_names() -> None:
    """Check that every private name is where it was.

    Raises:
        ValueError: one is not; the sentence names the library, its version, and the tested one.
    """
    for owner, name, need in PRIVATE:
        if not hasattr(owner, name) and name not in inspect.getsource(inspect.getmodule(owner)):
            library = owner.__module__.partition(".")[0]
            raise ValueError(f"{library} {metadata.version(library)} has no {owner.__name__}.{name}, which this code needs "
                             f"({need}). Install the tested version: `pip install -r requirements.lock`.")
