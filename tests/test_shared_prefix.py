"""The shared prefix beside TRL's own pass: log-probs, entropies, losses and every gradient, over random shapes."""

from __future__ import annotations

import contextlib
import random
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    NemotronConfig,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from rlvr_utils.grpo import grpo_loss
from rlvr_utils.models import empty_model
from rlvr_utils.profiles import LOSS_TYPES, get_profile
from rlvr_utils.sampling import shared_prefix
from rlvr_utils.training.trl_patches import SharedPrefixTrainer, SharedTrainer, StockTrainer, regroup

VOCABULARY = 24
PROMPTS = ["Question: What is 1 + 2?\nAnswer:", "Question: What is 7?\nAnswer:", "Question: 3 + 4 = ?\nAnswer:", "9 + 1"]
PAD = 0
stock_logps = GRPOTrainer._get_per_token_logps_and_entropies
stock_logps = getattr(stock_logps, "__wrapped__", stock_logps)


def tiny_llama(vocabulary: int = VOCABULARY, **options) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            pad_token_id=PAD,
            bos_token_id=1,
            eos_token_id=2,
            **options,
        )
    )


def ready(model, lora: bool = False):
    """The model as a trainer has it: TRL's fused head, our attention, LoRA with a B that is not zero."""
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    shared_prefix.enable(model)
    if lora:
        model = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
    return model


def random_batch(seed: int) -> tuple[torch.Tensor, ...]:
    """Shuffled groups in TRL's layout: prompts padded on the left, responses on the right, some of them empty of loss."""
    rng = random.Random(seed)
    draw = torch.Generator().manual_seed(seed)
    n, group, longest, response = rng.randint(1, 4), rng.randint(1, 5), rng.randint(1, 12), rng.randint(1, 9)
    exemplars = torch.randint(1, VOCABULARY, (rng.choice([0, 3, 20, 30]),), generator=draw)
    rows = []
    for _ in range(n):
        question = torch.randint(1, VOCABULARY, (rng.randint(1, longest),), generator=draw)
        rows += [torch.cat([exemplars, question])] * group
    lengths = torch.tensor([rng.randint(0 if rng.random() < 0.1 else 1, response) for _ in rows])
    width = max(map(len, rows)) + rng.randint(0, 2)  # TRL pads to the longest of the generation, not of the micro-batch
    prompt_ids = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0), value=PAD) for row in rows])
    prompt_mask = torch.stack([torch.nn.functional.pad(row * 0 + 1, (width - len(row), 0)) for row in rows])
    completion_mask = (torch.arange(response + rng.randint(0, 2)) < lengths[:, None]).long()
    completion_ids = torch.randint(1, VOCABULARY, completion_mask.shape, generator=draw) * completion_mask
    order = torch.randperm(len(rows), generator=draw)
    return tuple(x[order] for x in (prompt_ids, prompt_mask, completion_ids, completion_mask))


def stock(model, batch):
    """TRL's function as it stands."""
    prompt_ids, prompt_mask, completion_ids, completion_mask = batch
    trainer = SimpleNamespace(accelerator=SimpleNamespace(autocast=contextlib.nullcontext))
    return stock_logps(
        trainer,
        model,
        torch.cat([prompt_ids, completion_ids], 1),
        torch.cat([prompt_mask, completion_mask], 1),
        completion_ids.shape[1],
        compute_entropy=True,
    )[:2]


def shared(model, batch):
    return shared_prefix.token_logps(model, shared_prefix.pack(*batch))


def everything(model, logps_of, batch) -> dict[str, torch.Tensor]:
    """Log-probs, entropies, our GRPO loss on them, and the gradient of every trained tensor."""
    model.zero_grad()
    logps, entropies = logps_of(model, batch)
    draw = torch.Generator().manual_seed(1)
    old = logps.detach() + 0.3 * torch.randn(logps.shape, generator=draw, dtype=logps.dtype)
    reference = logps.detach() + 0.3 * torch.randn(logps.shape, generator=draw, dtype=logps.dtype)
    advantages = torch.randn(len(logps), generator=draw, dtype=logps.dtype)
    loss = grpo_loss(logps, advantages, batch[3], old_per_token_logps=old, ref_per_token_logps=reference, beta=0.1)
    loss.backward()
    gradients = {name: w.grad.clone() for name, w in model.named_parameters() if w.requires_grad}
    return {"log-probs": logps.detach(), "entropies": entropies.detach(), "loss": loss.detach()} | gradients


def assert_equal(ours: dict, theirs: dict, tolerance: float) -> None:
    """Each tensor to ``tolerance`` of its own largest entry; the loss, a small difference, to that of the log-probs."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        scale = value.abs().max().clamp(min=1e-3 if value.ndim else 1.0)
        assert (ours[name] - value).abs().max() <= tolerance * scale, name


@pytest.fixture
def exact(monkeypatch):
    """TRL's head, Llama's norms and its rotations compute in float32 always; these keep the precision of the weights.

    (TRL counts positions from the padding on, we from the prompt on: with rotary embeddings, equal but for rounding.)
    """

    def head(hidden, weight, bias, targets, temperature, *options):
        logps = (hidden @ weight.T / temperature).log_softmax(-1)
        return logps.gather(1, targets[:, None])[:, 0], -(logps.exp() * logps).sum(-1), None, None, None

    def norm(self, x):
        return self.weight * x * (x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()

    def rotary(self, x, position_ids):
        angles = (position_ids[..., None] * self.inv_freq.to(x)).repeat(1, 1, 2)
        return angles.cos(), angles.sin()

    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", SimpleNamespace(apply=head))
    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)
    monkeypatch.setattr(LlamaRotaryEmbedding, "forward", rotary)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_equal_to_stock_in_float32(lora):
    model = ready(tiny_llama(), lora)
    for seed in range(12):
        batch = random_batch(seed)
        assert_equal(everything(model, shared, batch), everything(model, stock, batch), 1e-5)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_equal_to_stock_in_float64(lora, exact):
    model = ready(tiny_llama(), lora).double()
    for seed in range(12):
        batch = random_batch(seed)
        assert_equal(everything(model, shared, batch), everything(model, stock, batch), 1e-10)


def test_gradient_checkpointing_changes_nothing(exact):
    model = ready(tiny_llama()).double().train()
    batch = random_batch(3)
    plain = everything(model, shared, batch)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_equal(everything(model, shared, batch), plain, 1e-12)


def test_data_parallel_changes_nothing(tmp_path, exact):
    """One process is enough to see that arguments and gradients pass through the wrapper."""
    model = ready(tiny_llama(), lora=True).double()
    batch = random_batch(4)
    alone = everything(model, shared, batch)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = everything(torch.nn.parallel.DistributedDataParallel(model), shared, batch)
    finally:
        torch.distributed.destroy_process_group()
    assert_equal({name.removeprefix("module."): value for name, value in wrapped.items()}, alone, 0.0)


def test_each_token_is_computed_once():
    """Two prompts with 20 common tokens, three responses each: 20 + the rest of both prompts + the responses."""
    exemplars = torch.arange(1, 21)
    prompts = [torch.cat([exemplars, torch.tensor(rest)]) for rest in ([21, 22, 23], [22])]
    rows = [prompts[i] for i in (0, 1, 1, 0, 0, 1)]
    ids = torch.stack([torch.nn.functional.pad(row, (23 - len(row), 0)) for row in rows])
    lengths = torch.tensor([4, 1, 5, 2, 3, 4])
    mask = (torch.arange(5) < lengths[:, None]).long()
    packed = shared_prefix.pack(ids, (ids > 0).long(), torch.ones(6, 5, dtype=torch.long), mask)
    assert packed.input_ids.shape == (1, 20 + (3 - 1) + (1 - 1) + lengths.sum())
    assert (packed.labels >= 0).sum() == lengths.sum()
    assert packed.position_ids.max() == 22 + 4 - 1, "the 23rd token of the long prompt opens a response of four"


def some_reward(completion_ids, **columns) -> list[float]:
    return [float(len(set(ids)) % 3) for ids in completion_ids]


def reward_with_equal_groups(prompts, completion_ids, **columns) -> list[float]:
    """The same reward for all responses to every second prompt."""
    rewards = some_reward(completion_ids)
    return [1.0 if PROMPTS.index(prompt) % 2 else reward for prompt, reward in zip(prompts, rewards, strict=True)]


def run(trainer_class, folder, lora: bool, reward=some_reward, **settings) -> tuple[GRPOTrainer, list[dict]]:
    """Two optimizer steps of two micro-batches each; the gradients of each step as the optimizer got them."""
    words = ["<pad>", "<s>", "</s>"] + sorted({c for text in PROMPTS for c in text})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
    args = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=6,
        gradient_accumulation_steps=2,
        num_generations=3,
        max_completion_length=7,
        max_steps=2,
        optim="sgd",
        learning_rate=0.01,
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
    config = LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
    tiny_llama(len(words)).save_pretrained(folder / "model")  # TRL loads the reference model from there
    trainer = trainer_class(
        model=LlamaForCausalLM.from_pretrained(folder / "model"),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 4}),
        reward_funcs=reward,
        processing_class=fast,
        peft_config=config,
    )
    steps: list[dict] = []
    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(
        lambda *_: steps.append({name: w.grad.clone() for name, w in trainer.model.named_parameters() if w.requires_grad})
    )
    trainer.train()
    return trainer, steps


def assert_same_steps(ours, theirs, *metrics: str) -> None:
    """Two results of :func:`run` have the same gradients and the same metrics, up to rounding."""
    for mine, other in zip(ours[1], theirs[1], strict=True):
        largest = max(g.abs().max() for g in other.values())
        assert largest > 0 and all((mine[name] - g).abs().max() <= 1e-5 * largest for name, g in other.items())
    for name in ("loss", "reward", "entropy", "grad_norm", *metrics):
        mine, other = ([row[name] for row in t.state.log_history if name in row] for t in (ours[0], theirs[0]))
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(
    "lora, settings",
    [
        (True, {"beta": 0.1}),
        (False, {"beta": 0.1, "loss_type": "grpo"}),
        (True, {"steps_per_generation": 4, "loss_type": "dr_grpo"}),
    ],
    ids=["lora-reference", "full-reference", "two-updates"],
)
def test_training_takes_the_same_steps(lora, settings, tmp_path):
    theirs, expected = run(GRPOTrainer, tmp_path / "stock", lora, **settings)
    ours, gradients = run(SharedPrefixTrainer, tmp_path / "shared", lora, **settings)
    assert len(gradients) == len(expected) == 2
    assert_same_steps((ours, gradients), (theirs, expected), "kl")


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_zero_advantages_need_no_backward_pass_whatever_the_loss(loss_type, tmp_path, monkeypatch):
    """The optimizer's steps and the metrics are stock TRL's; only rows with an advantage have a gradient."""
    settings = {"loss_type": loss_type, "reward": reward_with_equal_groups}
    theirs, expected = run(GRPOTrainer, tmp_path / "stock", True, **settings)
    inner = {StockTrainer: GRPOTrainer} | ({} if loss_type == "bnpo" else {SharedTrainer: SharedPrefixTrainer})
    for trainer_class, below in inner.items():  # bnpo forbids regrouping
        rows, compute = [], below._get_per_token_logps_and_entropies

        def counted(self, model, input_ids, *args, rows=rows, compute=compute, **options):
            rows.append((torch.is_grad_enabled(), len(input_ids)))
            return compute(self, model, input_ids, *args, **options)

        monkeypatch.setattr(below, "_get_per_token_logps_and_entropies", counted)
        ours, gradients = run(trainer_class, tmp_path / trainer_class.__name__, True, **settings)
        without = sum(n for gradient, n in rows if not gradient)
        assert 0 < without < sum(n for _, n in rows)
        assert_same_steps((ours, gradients), (theirs, expected), "frac_reward_zero_std")
        monkeypatch.undo()


@pytest.mark.parametrize("trainer_class", [StockTrainer, SharedTrainer])
def test_a_step_without_any_advantage_moves_nothing(trainer_class, tmp_path):
    _, gradients = run(trainer_class, tmp_path, True, reward=lambda completion_ids, **columns: [1.0] * len(completion_ids))
    assert len(gradients) == 2 and all(not g.any() for step in gradients for g in step.values())


def test_with_a_kl_term_every_response_keeps_its_gradient(tmp_path):
    settings = {"beta": 0.1, "reward": reward_with_equal_groups}
    _, expected = run(SharedPrefixTrainer, tmp_path / "all", True, **settings)
    _, gradients = run(SharedTrainer, tmp_path / "ours", True, **settings)
    assert all(mine[name].equal(g) for mine, other in zip(gradients, expected, strict=True) for name, g in other.items())


def test_groups_are_whole_and_optimizer_steps_keep_their_rows():
    prompts = torch.arange(4).repeat_interleave(4)[torch.randperm(16, generator=torch.Generator().manual_seed(0))]
    batches = [
        {"prompt_ids": part[:, None], "row": row, "num_items_in_batch": torch.tensor(9), "text": None}
        for part, row in zip(prompts.split(4), torch.arange(16).split(4), strict=True)
    ]
    together = regroup(batches, accumulation=4)
    assert all(len(part["prompt_ids"].unique()) == 1 for part in together)
    in_two = regroup(batches, accumulation=2)
    for start in (0, 2):
        rows = [torch.cat([part["row"] for part in parts[start : start + 2]]) for parts in (batches, in_two)]
        assert rows[0].sort().values.equal(rows[1].sort().values)
    assert all(prompts[part["row"]].equal(part["prompt_ids"][:, 0]) for part in together + in_two)
    assert in_two[0]["num_items_in_batch"] == 9


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="bnpo"):
        get_profile("mini", shared_prefix=True, loss_type="bnpo", micro_batch=32)
    get_profile("mini", shared_prefix=True, loss_type="bnpo", micro_batch=128)
    windowed = MistralForCausalLM(
        MistralConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=4,
        )
    )
    with pytest.raises(ValueError, match="a sliding window"):
        shared_prefix.enable(windowed)
    capped = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            layer_types=["full_attention"],
        )
    )
    with pytest.raises(ValueError, match="capped scores"):
        shared_prefix.enable(capped)
    with pytest.raises(ValueError, match="Gemma2ForCausalLM has capped scores"):  # seen without numbers too
        shared_prefix.refuse_unsuitable(empty_model(capped.config))
    assert capped.config._attn_implementation != shared_prefix.ATTENTION, "and goes on as it was"
    sinks = GptOssForCausalLM(
        GptOssConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            head_dim=8,
            num_key_value_heads=1,
            num_local_experts=2,
            num_experts_per_tok=1,
            layer_types=["full_attention"],
        )
    )
    with pytest.raises(ValueError, match="attention sinks"):
        shared_prefix.enable(sinks)
    sinks.set_attn_implementation(shared_prefix.ATTENTION)
    with pytest.raises(ValueError, match="attention sinks"), torch.no_grad():  # PyTorch's attention would leave them out
        sinks(torch.tensor([[1, 2, 3]]))
    apart = NemotronConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    with pytest.raises(ValueError, match="NemotronForCausalLM has layers that pass nothing on to their attention"):
        shared_prefix.refuse_unsuitable(empty_model(apart))
    plain = empty_model(tiny_llama().config)
    usual = plain.config._attn_implementation
    shared_prefix.refuse_unsuitable(plain)
    assert plain.config._attn_implementation == usual
    closed = SimpleNamespace(_supports_attention_backend=False)
    with pytest.raises(ValueError, match="fixed attention"):
        shared_prefix.enable(closed)


def test_tokens_that_are_linked_beside_the_attention_are_found_when_it_is_switched_on():
    """What no option of the attention shows: here, an MLP that adds up what came before it in the row."""
    model = tiny_llama(initializer_range=0.3)
    mlp = model.model.layers[0].mlp
    forward = mlp.forward
    mlp.forward = lambda hidden: forward(hidden).cumsum(1)
    with pytest.raises(ValueError, match="Parts other than its attention mix tokens. Set shared_prefix=False"):
        shared_prefix.enable(model)
    mlp.forward = forward
    state = torch.get_rng_state()
    shared_prefix.enable(model.train())
    assert model.training and torch.equal(torch.get_rng_state(), state)
