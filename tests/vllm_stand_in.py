"""A stand-in for ``vllm.LLM`` without vLLM: TRL's own ``VLLMGeneration`` drives it, and it records the weights that arrive.

It holds a second model, into which ``load_weights`` copies, and samples from that one. So a run through it shows what the
weights that were sent do. ``tests/with_vllm/`` checks that its methods take what the real ones take.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.generation import vllm_generation

from rlvr_utils.sampling.rollouts import Sampling, generate_ids
from rlvr_utils.training import build


class Receiver:
    """Where TRL sends weights: the model inside vLLM's model runner."""

    def __init__(self, model: torch.nn.Module):
        self.model, self.weights = model, dict(model.named_parameters())
        self.received: dict[str, torch.Tensor] = {}

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        for name, weight in weights:
            self.received[name] = weight.clone()
            with torch.no_grad():
                self.weights[name].copy_(weight)
        return set(self.received)


class LLM:
    """What ``VLLMGeneration`` uses of ``vllm.LLM``, on a transformers model."""

    made: list[weakref.ref] = []
    ended = 0

    def __init__(self, model: str, *, dtype: str = "auto", seed: int = 0, max_model_len: int | None = None, **options):
        torch.manual_seed(seed)  # as vLLM does: it seeds the whole process
        self.options = options | {"max_model_len": max_model_len, "dtype": dtype}
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()
        self.receiver = Receiver(self.model)
        runner = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=SimpleNamespace(model=self.receiver)))
        self.llm_engine = SimpleNamespace(
            model_executor=runner,
            model_config=SimpleNamespace(max_model_len=max_model_len),
            engine_core=SimpleNamespace(shutdown=self.shut_down),
        )
        LLM.made.append(weakref.ref(self))

    def generate(self, prompts: list[dict], sampling_params=None, *, use_tqdm: bool = True, **options) -> list:
        ids = [prompt["prompt_token_ids"] for prompt in prompts for _ in range(sampling_params.n)]
        how = Sampling(max_new_tokens=sampling_params.max_tokens, temperature=sampling_params.temperature)
        (rows,) = generate_ids(self.model, self.tokenizer, ids, how)
        outputs = [
            self.output(prompt, row.ids, row.sampled, sampling_params.temperature or 1.0)
            for prompt, row in zip(ids, rows, strict=True)
        ]
        n = sampling_params.n
        return [
            SimpleNamespace(prompt_token_ids=prompt["prompt_token_ids"], outputs=outputs[i * n : (i + 1) * n])
            for i, prompt in enumerate(prompts)
        ]

    @torch.no_grad()
    def output(self, prompt: list[int], ids: list[int], sampled: list[int], temperature: float) -> SimpleNamespace:
        """One completion, cut where our rule put an end token in: vLLM returns none after a stop string."""
        ids = ids[: sum(sampled)]
        logits = self.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].float() / temperature
        logps = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0].tolist() if ids else []
        entries = [{token: SimpleNamespace(logprob=logp, rank=1)} for token, logp in zip(ids, logps, strict=True)]
        return SimpleNamespace(token_ids=ids, logprobs=entries)

    def reset_prefix_cache(self) -> None: ...

    def shut_down(self) -> None:
        LLM.ended += 1


def install(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref]:
    """Let TRL and our trainer find the stand-in; returns the list of those that are made."""
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "LLM", LLM, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
    monkeypatch.setattr(build, "use_vllm", lambda p: p.use_vllm == "auto")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * 2**30))
    monkeypatch.setattr(LLM, "made", [])
    monkeypatch.setattr(LLM, "ended", 0)
    return LLM.made
