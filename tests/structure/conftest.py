"""Names, shapes and configs of real model classes, built tiny on the meta device."""

from __future__ import annotations

import json
import logging

import pytest

VOCAB = 97
COMMON = {"vocab_size": VOCAB, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3} | {
    "num_attention_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = COMMON | {"num_key_value_heads": 1}
VISION = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
MASKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT2 = MASKS | {"vocab_size": VOCAB, "n_embd": 8, "n_layer": 3, "n_head": 2, "n_positions": 16}
T5 = {"vocab_size": VOCAB, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 3, "num_heads": 2}
GEMMA = GROUPED | {"num_hidden_layers": 6, "head_dim": 4}
MOE = GROUPED | {"head_dim": 4, "num_experts": 4, "moe_intermediate_size": 4, "mlp_only_layers": [1]}
WHISPER = MASKS | {"vocab_size": VOCAB, "d_model": 8, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
WHISPER |= {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
WHISPER |= {"decoder_start_token_id": 1}
# As many convolutions as layers, so that the count alone can't tell them apart.
WAV2VEC2 = COMMON | {"num_hidden_layers": 7, "conv_dim": (8,) * 7}
WAV2VEC2 |= {"num_conv_pos_embedding_groups": 2, "num_conv_pos_embeddings": 4}
MAKES = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "gpt2-headless": ("GPT2Model", "GPT2Config", GPT2),
    "gpt-neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", COMMON),
    "bert": ("BertForMaskedLM", "BertConfig", COMMON),
    "bert-encoder": ("BertModel", "BertConfig", COMMON),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
    "mamba": ("MambaForCausalLM", "MambaConfig", {"vocab_size": VOCAB, "hidden_size": 8, "num_hidden_layers": 3}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", GEMMA),
    "gemma3-vision": (
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        {"text_config": GEMMA, "vision_config": VISION | {"num_hidden_layers": 6}},
    ),
    "qwen3-moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", MOE),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", GROUPED),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", GROUPED),
    "albert": ("AlbertForMaskedLM", "AlbertConfig", COMMON | {"embedding_size": 4}),
    "vit": ("ViTForImageClassification", "ViTConfig", VISION | {"num_hidden_layers": 3}),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig", WHISPER),
    "wav2vec2": ("Wav2Vec2ForCTC", "Wav2Vec2Config", WAV2VEC2),
}


@pytest.fixture(scope="session")
def tiny():
    """tiny(family) -> (shapes by name, config.json as a dict), each family built once."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    made = {}

    def build(family):
        if family not in made:
            model_class, config_class, arguments = MAKES[family]
            config = getattr(transformers, config_class)(**arguments)
            with torch.device("meta"):
                model = getattr(transformers, model_class)(config)
            shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
            made[family] = shapes, json.loads(config.to_json_string(use_diff=False))
        return made[family]

    return build
