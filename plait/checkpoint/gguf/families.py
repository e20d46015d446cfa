"""The model families that are read from GGUF and written to it: names, settings and what is changed in the weights.

One table serves both ways. Names of tensors are the gguf package's own (`TensorNameMap`); what llama.cpp's converter does
to weights, and what its metadata means, is here. Facts: llama.cpp's `conversion` package and `src/models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plait.checkpoint.gguf.header import gguf_package

__all__ = ["COMMON", "FAMILIES", "FLOAT32", "Family", "family_of_architecture", "family_of_model_type", "stems"]


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of llama.cpp, and the transformers class that it is."""

    architecture: str
    """`general.architecture`."""
    model_type: str
    class_name: str
    permuted: bool = False
    """Rows of each head of q and k are interleaved: llama.cpp turns neighbours, transformers turns halves."""
    shifted: bool = False
    """Norms are stored with the 1 that the model adds to them."""
    settings: tuple[tuple[str, str], ...] = ()
    """Keys of config.json and of the metadata, beside `COMMON`."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """What the architecture implies, as config.json states it."""
    head_dim: bool = False
    """Whether the class states `head_dim` even where it is hidden_size / num_attention_heads."""
    names: tuple[str, ...] = ()
    """Stems of a layer's tensors in transformers; those that a model lacks are not there in its file."""
    experts: Mapping[str, str] = field(default_factory=dict)
    """Stem of the experts' one tensor -> stem of each expert's own, with {} for its number."""
    also: tuple[str, ...] = ()
    """Further model types that are written as this architecture, and read back as this family's own."""


COMMON = (
    ("num_hidden_layers", "block_count"),
    ("max_position_embeddings", "context_length"),
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("rope_theta", "rope.freq_base"),
)
"""Key of config.json, and of the metadata behind the architecture's name."""
_WHOLE = ("model.embed_tokens", "model.norm", "lm_head")
_NORMS = ("input_layernorm", "post_attention_layernorm")
_ATTENTION = tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
_DENSE = (*_NORMS, *_ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_QK_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_GEMMA2 = (*_DENSE, "pre_feedforward_layernorm", "post_feedforward_layernorm")
_FUSED = (*_NORMS, "self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
_SHARED = ("mlp.shared_expert_gate", *(f"mlp.shared_expert.{name}_proj" for name in ("gate", "up", "down")))
FLOAT32 = ("ffn_gate_inp", "ffn_gate_inp_shexp")
"""Matrices that files keep in float32, whatever the others are: routers."""
_CAPS = (("attn_logit_softcapping", "attn_logit_softcapping"), ("final_logit_softcapping", "final_logit_softcapping"))
_WINDOW = ("sliding_window", "attention.sliding_window")
_EXPERTS = (("num_experts_per_tok", "expert_used_count"),)
_QWEN_EXPERTS = (*_EXPERTS, ("num_experts", "expert_count"), ("moe_intermediate_size", "expert_feed_forward_length"))
_SILU = {"hidden_act": "silu"}
_GELU = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}
_GLU = {f"ffn_{kind}_exps": "mlp.experts.{}." + f"{kind}_proj" for kind in ("gate", "up", "down")}
_MIXTRAL = {
    f"ffn_{kind}_exps": "block_sparse_moe.experts.{}." + own
    for kind, own in (("gate", "w1"), ("down", "w2"), ("up", "w3"))
}

FAMILIES = (
    Family("llama", "llama", "LlamaForCausalLM", permuted=True, names=_DENSE, fixed=_SILU, also=("mistral",)),
    Family(
        "llama", "mixtral", "MixtralForCausalLM", permuted=True, experts=_MIXTRAL,
        names=(*_NORMS, *_ATTENTION, "block_sparse_moe.gate"),
        settings=(*_EXPERTS, ("num_local_experts", "expert_count")), fixed=_SILU,
    ),
    Family("qwen2", "qwen2", "Qwen2ForCausalLM", names=_DENSE, fixed={**_SILU, "use_sliding_window": False}),
    Family(
        "qwen2moe", "qwen2_moe", "Qwen2MoeForCausalLM", experts=_GLU,
        names=(*_NORMS, *_ATTENTION, "mlp.gate", *_SHARED), fixed={**_SILU, "use_sliding_window": False, "norm_topk_prob": False},
        settings=(*_QWEN_EXPERTS, ("shared_expert_intermediate_size", "expert_shared_feed_forward_length")),
    ),
    Family("qwen3", "qwen3", "Qwen3ForCausalLM", names=(*_DENSE, *_QK_NORMS), fixed=_SILU, head_dim=True),
    Family(
        "qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", experts=_GLU, settings=_QWEN_EXPERTS, head_dim=True,
        names=(*_NORMS, *_ATTENTION, *_QK_NORMS, "mlp.gate"),
        fixed={**_SILU, "norm_topk_prob": True},
    ),
    Family("gemma", "gemma", "GemmaForCausalLM", shifted=True, names=_DENSE, fixed=_GELU, head_dim=True),
    Family(
        "gemma2", "gemma2", "Gemma2ForCausalLM", shifted=True, names=_GEMMA2, fixed=_GELU, head_dim=True,
        settings=(*_CAPS, _WINDOW),
    ),
    Family(
        "gemma3", "gemma3_text", "Gemma3ForCausalLM", shifted=True, fixed=_GELU, head_dim=True,
        names=(*_GEMMA2, *_QK_NORMS),
        settings=(_CAPS[1], _WINDOW, ("rope_local_base_freq", "rope.freq_base_swa")),
    ),
    Family(
        "phi3", "phi3", "Phi3ForCausalLM", names=_FUSED, fixed=_SILU,
        settings=(_WINDOW, ("original_max_position_embeddings", "rope.scaling.original_context_length")),
    ),
)  # fmt: skip


def family_of_architecture(architecture: str, *, experts: bool) -> Family | None:
    """Find the family of a file; `llama` with experts is Mixtral."""
    found = [family for family in FAMILIES if family.architecture == architecture]
    return next((family for family in found if bool(family.experts) == experts), None)


def family_of_model_type(model_type: str) -> Family | None:
    """Find the family that a config.json's model is written as."""
    return next((one for one in FAMILIES if model_type == one.model_type or model_type in one.also), None)


def stems(family: Family, layers: int) -> dict[str, str]:
    """Map stems of GGUF's names (without .weight or .bias) to transformers', for all that a model may have.

    Those of experts have {} for the expert's number.
    """
    gguf = gguf_package()
    architectures = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    table = gguf.get_tensor_name_map(architectures[family.architecture], layers)
    found = {table.get_name(name): name for name in _WHOLE}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        found |= {table.get_name(prefix + name): prefix + name for name in family.names}
        found |= {f"blk.{layer}.{stem}": prefix + name for stem, name in family.experts.items()}
    return {stem: name for stem, name in found.items() if stem is not None}
