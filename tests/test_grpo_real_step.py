"""Our functions on real steps: a ``GRPOTrainer`` with LoRA generates, accumulates and updates; we recompute it all.

From the token ids and rewards alone: advantages, per-token log-probabilities, the loss of every micro-batch, and the
gradient of every LoRA tensor that the optimiser received.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
    set_seed,
)
from trl import GRPOConfig, GRPOTrainer

from rlvr_utils import REPO, grpo

TOLERANCE = 1e-4
MICRO_BATCH, ACCUMULATION, GROUP = 4, 2, 4
MINILLAMA = REPO / "data" / "minillama"
PROMPTS = ["Question: What is 1 + 2?\nAnswer:", "Question: What is 7?\nAnswer:", "Question: 3 + 4 = ?\nAnswer:"]


def tiny_llama() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random Llama over single characters."""
    special = ["<pad>", "<s>", "</s>"]
    words = special + sorted({c for text in PROMPTS for c in text})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config), fast


def lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def mini_llama() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    if not MINILLAMA.is_dir():
        pytest.skip("no data/minillama: `make minillama` makes it")
    return AutoModelForCausalLM.from_pretrained(MINILLAMA), AutoTokenizer.from_pretrained(MINILLAMA, padding_side="left")


@dataclass
class Step:
    """What one optimiser step saw and did."""

    weights: dict[str, torch.Tensor]
    inputs: list[dict] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    logps: list[torch.Tensor] = field(default_factory=list)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)


class Watch(TrainerCallback):
    """Keeps the adapter before each step and its gradient as the optimiser gets it."""

    def __init__(self):
        self.steps: list[Step] = []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.steps.append(Step({name: w.detach().clone() for name, w in adapter(model)}))

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps[-1].gradients = {name: w.grad.clone() for name, w in adapter(model)}


class WatchedTrainer(GRPOTrainer):
    """TRL's trainer; what passes through ``_compute_loss`` is written down."""

    watch: Watch

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        self.watch.steps[-1].inputs.append({k: v.clone() for k, v in inputs.items() if torch.is_tensor(v)})
        self.watch.steps[-1].losses.append(loss.item())
        return loss

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        result = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        if torch.is_grad_enabled():
            self.watch.steps[-1].logps.append(result[0].detach().clone())
        return result


def adapter(model) -> list[tuple[str, torch.Tensor]]:
    return [(name, w) for name, w in model.named_parameters() if w.requires_grad]


def run_trl(make, folder, n_steps: int, settings: dict) -> tuple[WatchedTrainer, list[tuple], list[float]]:
    """A short run; returns the trainer and, in sampling order, the ids of each prompt and response, and the rewards."""
    model, tokenizer = make()
    sampled: list[tuple] = []
    rewards: list[float | None] = []

    def reward(prompts, completion_ids, **columns):
        """Any deterministic reward with ties and a gap will do: how many different tokens, none for one response."""
        values = [float(len(set(ids)) // 2) for ids in completion_ids]
        values[1] = None
        prompt_ids = tokenizer(prompts)["input_ids"]
        sampled.extend((tuple(prompt), tuple(ids)) for prompt, ids in zip(prompt_ids, completion_ids, strict=True))
        rewards.extend(values)
        return values

    args = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        num_generations=GROUP,
        max_completion_length=12,
        max_steps=n_steps,
        learning_rate=0.05,
        max_grad_norm=1e9,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
        seed=3,
        dataloader_pin_memory=False,
        **settings,
    )
    set_seed(3)
    trainer = WatchedTrainer(
        model=model,
        reward_funcs=reward,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 4}),
        processing_class=tokenizer,
        peft_config=lora(),
    )
    trainer.watch = Watch()
    trainer.add_callback(trainer.watch)
    for name, weight in adapter(trainer.model):
        if "lora_B" in name:  # zero at the start, which would leave every lora_A without a gradient
            torch.nn.init.normal_(weight, std=0.05)
    trainer.train()
    return trainer, sampled, rewards


def completion_logps(model, inputs: dict, temperature: float = 1.0) -> torch.Tensor:
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    n = inputs["completion_ids"].shape[1]
    logits = grpo.completion_logits(model(input_ids=ids, attention_mask=attention).logits, n)
    return grpo.selected_logps(logits, inputs["completion_ids"], temperature)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Within the tolerance of the largest entry."""
    return bool((ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max().clamp(min=1e-6))


SETTINGS = {
    "defaults": dict(),
    "grpo with KL": dict(loss_type="grpo", beta=0.1, scale_rewards="batch", temperature=0.8),
    "dr_grpo": dict(loss_type="dr_grpo", scale_rewards="none"),
    "two updates a generation": dict(steps_per_generation=2 * ACCUMULATION, epsilon=0.05),
}


@pytest.mark.parametrize("make", [tiny_llama, mini_llama])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_real_step(make, name, tmp_path):
    settings = SETTINGS[name]
    n_steps = 2 if "steps_per_generation" in settings else 1
    trainer, sampled, rewards = run_trl(make, tmp_path, n_steps, settings)
    ours = dict(zip(sampled, grpo.group_advantages(rewards, GROUP, trainer.scale_rewards).tolist(), strict=True))
    assert len(trainer.watch.steps) == n_steps and max(ours.values()) > 0
    temperature = settings.get("temperature", 1.0)
    twin = get_peft_model(make()[0], lora())  # a model that TRL has not touched
    for step in trainer.watch.steps:
        assert not twin.load_state_dict(step.weights, strict=False).unexpected_keys
        twin.zero_grad()
        for inputs, loss, their_logps in zip(step.inputs, step.losses, step.logps, strict=True):
            advantages = torch.tensor([ours[key] for key in response_keys(inputs)])
            assert close(advantages, inputs["advantages"])
            mask = inputs["completion_mask"]
            logps = completion_logps(twin, inputs, temperature)
            assert close(logps * mask, their_logps * mask)
            our_loss = grpo.grpo_loss(
                logps,
                advantages,
                mask,
                old_per_token_logps=inputs.get("old_per_token_logps"),
                ref_per_token_logps=reference_logps(twin, inputs, temperature) if settings.get("beta") else None,
                loss_type=trainer.loss_type,
                beta=trainer.beta,
                epsilon=trainer.epsilon_low,
                max_completion_length=trainer.max_completion_length,
                gradient_accumulation_steps=ACCUMULATION,
                num_items_in_batch=inputs["num_items_in_batch"],
                steps_per_generation=trainer.args.steps_per_generation,
            )
            assert our_loss.item() == pytest.approx(loss, abs=TOLERANCE)
            our_loss.backward()
        assert any(gradient.abs().max() > 1e-4 for gradient in step.gradients.values())
        for weight_name, weight in adapter(twin):
            assert close(weight.grad, step.gradients[weight_name]), weight_name


def reference_logps(model, inputs: dict, temperature: float) -> torch.Tensor:
    """The reference is the model without its adapter."""
    with torch.no_grad(), model.disable_adapter():
        return completion_logps(model, inputs, temperature)


def response_keys(inputs: dict) -> list[tuple]:
    """The ids of each row's prompt and response: TRL shuffles the responses before it splits them."""

    def unpadded(what: str) -> list[tuple]:
        rows = zip(inputs[f"{what}_ids"].tolist(), inputs[f"{what}_mask"].tolist(), strict=True)
        return [tuple(i for i, m in zip(ids, mask, strict=True) if m) for ids, mask in rows]

    return list(zip(unpadded("prompt"), unpadded("completion"), strict=True))
