"""Real vLLM on a CPU behind our own code: `make test-vllm`. What a CPU lacks is filled in here.

* ``build.use_vllm`` and TRL ask for CUDA, and we ask for the GPU's memory: a GPU of 80 GiB is invented.
* vLLM drops the packed weights' plain form on a CPU, so no new weights could be loaded: it is kept.
* vLLM's CPU attention takes heads of 64 numbers and MiniLlama has 56: the same function is written with 64.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rlvr_utils import REPO
from rlvr_utils.training import build

HEAD = 64


def widened(weight: torch.Tensor, heads: int, old: int, new: int) -> torch.Tensor:
    """Rows of each head from ``old`` to ``new``, zeros between: both halves of a rotary pair keep their place."""
    wide = weight.new_zeros(heads, 2, new // 2, weight.shape[1])
    wide[:, :, : old // 2] = weight.view(heads, 2, old // 2, -1)
    return wide.reshape(heads * new, -1)


def with_wider_heads(folder: Path) -> Path:
    """MiniLlama with head_dim 64, the same function: zeros in the new places, queries scaled for the new root.

    The rotary frequencies depend on head_dim, so theta is chosen per pair: the first 28 pairs keep their own frequencies
    where ``theta_new ** (2i / 64) == theta ** (2i / 56)``.
    """
    small = AutoModelForCausalLM.from_pretrained(REPO / "data" / "minillama")
    config, old = small.config.to_dict(), small.config.head_dim
    theta = config["rope_parameters"]["rope_theta"] ** (HEAD / old)
    config |= {"head_dim": HEAD, "rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    weights = small.state_dict()
    for name, weight in weights.items():
        if "q_proj" in name:
            weights[name] = widened(weight, small.config.num_attention_heads, old, HEAD) * (HEAD / old) ** 0.5
        elif "k_proj" in name or "v_proj" in name:
            weights[name] = widened(weight, small.config.num_key_value_heads, old, HEAD)
        elif "o_proj" in name:
            weights[name] = widened(weight.T, small.config.num_attention_heads, old, HEAD).T.contiguous()
    wide = LlamaForCausalLM(LlamaConfig.from_dict(config))
    wide.load_state_dict(weights)
    wide.generation_config = small.generation_config
    wide.save_pretrained(folder)
    AutoTokenizer.from_pretrained(REPO / "data" / "minillama").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def minillama(tmp_path_factory) -> str:
    """A folder with MiniLlama in heads of 64."""
    return str(with_wider_heads(tmp_path_factory.mktemp("minillama")))


@pytest.fixture(scope="session", autouse=True)
def an_invented_gpu():
    """What TRL and our trainer ask of CUDA, answered by a CPU; vLLM keeps the plain weights."""
    from vllm.model_executor.layers import linear

    def keep_plain(self, layer: torch.nn.Module) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "use_vllm", lambda p: p.use_vllm == "auto")
        patch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * 2**30))
        patch.setattr(linear.UnquantizedLinearMethod, "process_weights_after_loading", keep_plain)
        yield
