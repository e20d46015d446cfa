"""Small configs of many transformers model classes: what the compatibility matrix is made from."""

from __future__ import annotations

from typing import Any

VOCAB, WIDTH, LENGTH = 64, 16, 6
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
LINEAR = ["linear_attention", "full_attention", "linear_attention"]
STATE = {"mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2}
BERT = {key: TEXT[key] for key in TEXT if key not in {"num_key_value_heads", "head_dim"}}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT = {"vocab_size": VOCAB, "n_embd": WIDTH, "n_layer": 3, "n_head": 2, "n_positions": 64, "n_inner": 24} | IDS
BART = {
    "vocab_size": VOCAB,
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
} | IDS
T5 = {"vocab_size": VOCAB, "d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 3, "num_heads": 2}
T5 |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2}
EYE = {
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "num_channels": 3,
}
QWEN_TEXT = TEXT | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
QWEN_TOKENS = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 58, "vision_end_token_id": 59}
WAVE = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "conv_dim": (8, 8),
    "conv_stride": (4, 4),
    "conv_kernel": (8, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
    "apply_spec_augment": False,
} | IDS
SPEECH = BART | {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 16}

# What a class is given: "text", "pair" (encoder and decoder), "sight" (text with an image), "image", "both" (an image
# and a text), "wave", "mel". Group -> class -> (config class, its config, what it is given).
CLASSES: dict[str, dict[str, tuple[str, dict[str, Any], str]]] = {
    "Decoders": {
        "LlamaForCausalLM": ("LlamaConfig", TEXT | {"attention_bias": True, "mlp_bias": True}, "text"),
        "MistralForCausalLM": ("MistralConfig", TEXT | {"sliding_window": 16}, "text"),
        "Qwen2ForCausalLM": ("Qwen2Config", TEXT, "text"),
        "Qwen3ForCausalLM": ("Qwen3Config", TEXT | {"tie_word_embeddings": True}, "text"),
        "GemmaForCausalLM": ("GemmaConfig", TEXT, "text"),
        "Gemma2ForCausalLM": ("Gemma2Config", TEXT | {"query_pre_attn_scalar": 8}, "text"),
        "Gemma3ForCausalLM": ("Gemma3TextConfig", TEXT | {"layer_types": SLIDING, "sliding_window": 8}, "text"),
        "PhiForCausalLM": ("PhiConfig", TEXT, "text"),
        "Phi3ForCausalLM": ("Phi3Config", TEXT | {"sliding_window": 16}, "text"),
        "CohereForCausalLM": ("CohereConfig", TEXT | {"use_qk_norm": True}, "text"),
        "Cohere2ForCausalLM": ("Cohere2Config", TEXT | {"layer_types": SLIDING}, "text"),
        "GraniteForCausalLM": ("GraniteConfig", TEXT, "text"),
        "StableLmForCausalLM": ("StableLmConfig", TEXT | {"use_qkv_bias": True, "qk_layernorm": True}, "text"),
        "Starcoder2ForCausalLM": ("Starcoder2Config", TEXT, "text"),
        "Olmo2ForCausalLM": ("Olmo2Config", TEXT, "text"),
        "Olmo3ForCausalLM": ("Olmo3Config", TEXT | {"layer_types": SLIDING}, "text"),
        "SmolLM3ForCausalLM": ("SmolLM3Config", TEXT, "text"),
        "Exaone4ForCausalLM": ("Exaone4Config", TEXT | {"layer_types": SLIDING, "sliding_window": 8}, "text"),
        "Glm4ForCausalLM": ("Glm4Config", TEXT, "text"),
        "NemotronForCausalLM": ("NemotronConfig", TEXT, "text"),
        "PersimmonForCausalLM": ("PersimmonConfig", TEXT, "text"),
        "FalconForCausalLM": ("FalconConfig", BERT | {"new_decoder_architecture": True, "num_kv_heads": 1}, "text"),
        "BloomForCausalLM": (
            "BloomConfig",
            {"vocab_size": VOCAB, "hidden_size": WIDTH, "n_layer": 3, "n_head": 2},
            "text",
        ),
        "OPTForCausalLM": ("OPTConfig", TEXT | {"ffn_dim": 24, "word_embed_proj_dim": 8}, "text"),
        "MptForCausalLM": (
            "MptConfig",
            {"vocab_size": VOCAB, "d_model": WIDTH, "n_layers": 3, "n_heads": 2, "max_seq_len": 64},
            "text",
        ),
        "GPT2LMHeadModel": ("GPT2Config", GPT, "text"),
        "GPTNeoForCausalLM": (
            "GPTNeoConfig",
            {
                "vocab_size": VOCAB,
                "hidden_size": WIDTH,
                "num_layers": 2,
                "num_heads": 2,
                "attention_types": [[["global", "local"], 1]],
            }
            | IDS,
            "text",
        ),
        "GPTNeoXForCausalLM": ("GPTNeoXConfig", TEXT | {"rotary_pct": 0.5}, "text"),
        "GPTJForCausalLM": ("GPTJConfig", GPT | {"rotary_dim": 4}, "text"),
        "CodeGenForCausalLM": ("CodeGenConfig", GPT | {"rotary_dim": 4, "n_head": 4}, "text"),
        "GPTBigCodeForCausalLM": ("GPTBigCodeConfig", GPT, "text"),
        "XGLMForCausalLM": (
            "XGLMConfig",
            {"vocab_size": VOCAB, "d_model": WIDTH, "ffn_dim": 24, "num_layers": 3, "attention_heads": 2} | IDS,
            "text",
        ),
    },
    "Mixtures of experts": {
        "MixtralForCausalLM": ("MixtralConfig", TEXT | {"num_local_experts": 4}, "text"),
        "Qwen2MoeForCausalLM": ("Qwen2MoeConfig", TEXT | EXPERTS | {"shared_expert_intermediate_size": 8}, "text"),
        "Qwen3MoeForCausalLM": ("Qwen3MoeConfig", TEXT | EXPERTS, "text"),
        "DeepseekV2ForCausalLM": (
            "DeepseekV2Config",
            TEXT
            | LATENT
            | {
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 8,
                "n_group": 1,
                "topk_group": 1,
            }
            | {"first_k_dense_replace": 1, "num_key_value_heads": 2},
            "text",
        ),
        "DeepseekV3ForCausalLM": (
            "DeepseekV3Config",
            BERT
            | LATENT
            | {
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 8,
                "n_group": 2,
                "topk_group": 1,
            }
            | {"first_k_dense_replace": 1, "num_key_value_heads": 2},
            "text",
        ),
        "OlmoeForCausalLM": ("OlmoeConfig", TEXT | EXPERTS, "text"),
        "GptOssForCausalLM": ("GptOssConfig", TEXT | {"num_local_experts": 4, "layer_types": SLIDING}, "text"),
        "PhimoeForCausalLM": ("PhimoeConfig", TEXT | {"num_local_experts": 4}, "text"),
        "GraniteMoeForCausalLM": ("GraniteMoeConfig", TEXT | {"num_local_experts": 4}, "text"),
        "Glm4MoeForCausalLM": (
            "Glm4MoeConfig",
            TEXT
            | {
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": 8,
                "n_group": 1,
                "topk_group": 1,
            }
            | {"first_k_dense_replace": 1},
            "text",
        ),
        "Ernie4_5_MoeForCausalLM": (
            "Ernie4_5_MoeConfig",
            TEXT | {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 8, "moe_layer_start_index": 1},
            "text",
        ),
        "DbrxForCausalLM": (
            "DbrxConfig",
            {"vocab_size": VOCAB, "d_model": WIDTH, "n_layers": 2, "n_heads": 2, "max_seq_len": 64}
            | {"ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2}}
            | {"attn_config": {"kv_n_heads": 1, "rope_theta": 1e4, "clip_qkv": 8.0}},
            "text",
        ),
    },
    "State space models and hybrids": {
        "MambaForCausalLM": (
            "MambaConfig",
            {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 3, "state_size": 4} | IDS,
            "text",
        ),
        "Mamba2ForCausalLM": (
            "Mamba2Config",
            {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 3, "state_size": 8}
            | {"num_heads": 4, "head_dim": 8, "n_groups": 1, "expand": 2, "chunk_size": 4}
            | IDS,
            "text",
        ),
        "JambaForCausalLM": (
            "JambaConfig",
            TEXT
            | STATE
            | {"num_experts": 2, "attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 2}
            | {"expert_layer_offset": 1, "mamba_dt_rank": 2, "use_mamba_kernels": False},
            "text",
        ),
        "BambaForCausalLM": (
            "BambaConfig",
            TEXT | STATE | {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1},
            "text",
        ),
        "FalconH1ForCausalLM": (
            "FalconH1Config",
            TEXT
            | STATE
            | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_chunk_size": 4},
            "text",
        ),
        "Zamba2ForCausalLM": (
            "Zamba2Config",
            TEXT
            | STATE
            | {"mamba_headdim": 8, "mamba_ngroups": 1, "n_mamba_heads": 4, "num_mem_blocks": 1, "num_hidden_layers": 4}
            | {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "chunk_size": 4, "hybrid_layer_ids": [1, 3]}
            | {"use_shared_attention_adapter": False, "adapter_rank": 4, "num_key_value_heads": 2},
            "text",
        ),
        "Qwen3NextForCausalLM": (
            "Qwen3NextConfig",
            TEXT
            | EXPERTS
            | {"layer_types": LINEAR, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 4}
            | {"linear_value_head_dim": 4, "shared_expert_intermediate_size": 8},
            "text",
        ),
        "GraniteMoeHybridForCausalLM": (
            "GraniteMoeHybridConfig",
            TEXT
            | STATE
            | {"layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 4, "mamba_d_head": 8}
            | {"mamba_n_groups": 1, "num_local_experts": 4, "shared_intermediate_size": 8},
            "text",
        ),
        "Lfm2ForCausalLM": (
            "Lfm2Config",
            TEXT | {"layer_types": ["conv", "full_attention", "conv"], "block_ff_dim": 24},
            "text",
        ),
        "RecurrentGemmaForCausalLM": (
            "RecurrentGemmaConfig",
            TEXT | {"lru_width": 16, "block_types": ["recurrent", "recurrent", "attention"]},
            "text",
        ),
        "RwkvForCausalLM": (
            "RwkvConfig",
            {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 3, "intermediate_size": 24}
            | {"attention_hidden_size": WIDTH, "context_length": 64},
            "text",
        ),
    },
    "Encoders": {
        "BertForMaskedLM": ("BertConfig", BERT, "text"),
        "BertForSequenceClassification": ("BertConfig", BERT | {"num_labels": 3}, "text"),
        "RobertaForMaskedLM": ("RobertaConfig", BERT, "text"),
        "XLMRobertaForTokenClassification": ("XLMRobertaConfig", BERT, "text"),
        "DistilBertForMaskedLM": (
            "DistilBertConfig",
            {"vocab_size": VOCAB, "dim": WIDTH, "hidden_dim": 24, "n_layers": 3, "n_heads": 2},
            "text",
        ),
        "DebertaV2ForMaskedLM": (
            "DebertaV2Config",
            BERT
            | {"relative_attention": True, "position_buckets": 8, "share_att_key": True, "pos_att_type": ["p2c", "c2p"]}
            | {"norm_rel_ebd": "layer_norm", "type_vocab_size": 0},
            "text",
        ),
        "ElectraForMaskedLM": ("ElectraConfig", BERT | {"embedding_size": 8}, "text"),
        "AlbertForMaskedLM": ("AlbertConfig", BERT | {"embedding_size": 8}, "text"),
        "MPNetForMaskedLM": ("MPNetConfig", BERT, "text"),
        "ModernBertForMaskedLM": (
            "ModernBertConfig",
            BERT | {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 8},
            "text",
        ),
    },
    "Encoder-decoders": {
        "T5ForConditionalGeneration": ("T5Config", T5, "pair"),
        "MT5ForConditionalGeneration": ("MT5Config", T5 | {"feed_forward_proj": "gated-gelu"}, "pair"),
        "UMT5ForConditionalGeneration": ("UMT5Config", T5, "pair"),
        "SwitchTransformersForConditionalGeneration": (
            "SwitchTransformersConfig",
            T5
            | {"num_experts": 2, "expert_capacity": 8, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
            "pair",
        ),
        "BartForConditionalGeneration": ("BartConfig", BART, "pair"),
        "MBartForConditionalGeneration": ("MBartConfig", BART, "pair"),
        "PegasusForConditionalGeneration": ("PegasusConfig", BART, "pair"),
        "MarianMTModel": ("MarianConfig", BART, "pair"),
        "M2M100ForConditionalGeneration": ("M2M100Config", BART, "pair"),
    },
}
