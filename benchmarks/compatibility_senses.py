"""Small configs of transformers model classes that see or hear, for the compatibility matrix."""

from __future__ import annotations

from typing import Any

from compatibility_classes import BERT, EYE, QWEN_TEXT, QWEN_TOKENS, SPEECH, TEXT, VOCAB, WAVE, WIDTH

SEEING: dict[str, tuple[str, dict[str, Any], str]] = {
    "LlavaForConditionalGeneration": (
        "LlavaConfig",
        {
            "vision_config": EYE | {"model_type": "clip_vision_model", "projection_dim": WIDTH},
            "text_config": TEXT | {"model_type": "llama"},
            "image_token_id": 60,
            "image_seq_length": 4,
        },
        "sight",
    ),
    "Qwen2VLForConditionalGeneration": (
        "Qwen2VLConfig",
        {
            "text_config": QWEN_TEXT,
            "vision_config": {"depth": 2, "embed_dim": WIDTH, "hidden_size": WIDTH, "num_heads": 2, "patch_size": 4},
        }
        | QWEN_TOKENS,
        "text",
    ),
    "Qwen2_5_VLForConditionalGeneration": (
        "Qwen2_5_VLConfig",
        {
            "text_config": QWEN_TEXT,
            "vision_config": {"depth": 2, "hidden_size": WIDTH, "num_heads": 2, "patch_size": 4}
            | {"intermediate_size": 24, "out_hidden_size": WIDTH, "fullatt_block_indexes": [1]},
        }
        | QWEN_TOKENS,
        "text",
    ),
    "Qwen3VLForConditionalGeneration": (
        "Qwen3VLConfig",
        {
            "text_config": QWEN_TEXT,
            "vision_config": {"depth": 2, "hidden_size": WIDTH, "num_heads": 2, "patch_size": 4}
            | {"intermediate_size": 24, "out_hidden_size": WIDTH, "deepstack_visual_indexes": [0, 1]},
        }
        | QWEN_TOKENS,
        "text",
    ),
    "Gemma3ForConditionalGeneration": (
        "Gemma3Config",
        {
            "text_config": TEXT | {"sliding_window": 8},
            "vision_config": EYE | {"vision_use_head": False},
            "mm_tokens_per_image": 4,
            "image_token_id": 60,
            "boi_token_index": 58,
            "eoi_token_index": 59,
        },
        "sight",
    ),
    "PaliGemmaForConditionalGeneration": (
        "PaliGemmaConfig",
        {
            "text_config": TEXT | {"model_type": "gemma"},
            "vision_config": EYE | {"model_type": "siglip_vision_model", "vision_use_head": False},
            "projection_dim": WIDTH,
            "hidden_size": WIDTH,
            "image_token_id": 60,
        },
        "sight",
    ),
    "InternVLForConditionalGeneration": (
        "InternVLConfig",
        {
            "text_config": TEXT | {"model_type": "qwen2"},
            "vision_config": EYE | {"image_size": [16, 16], "patch_size": [8, 8]},
            "image_token_id": 60,
            "image_seq_length": 1,
        },
        "text",
    ),
    "Idefics3ForConditionalGeneration": (
        "Idefics3Config",
        {"text_config": TEXT | {"model_type": "llama"}, "vision_config": EYE, "image_token_id": 60, "scale_factor": 2},
        "text",
    ),
    "MllamaForConditionalGeneration": (
        "MllamaConfig",
        {
            "text_config": TEXT | {"cross_attention_layers": [1], "num_key_value_heads": 1},
            "vision_config": {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2, "image_size": 16}
            | {"attention_heads": 2, "num_global_layers": 1, "patch_size": 8, "vision_output_dim": 2 * WIDTH}
            | {"intermediate_layers_indices": [0], "max_num_tiles": 2, "supported_aspect_ratios": [[1, 1], [1, 2]]},
            "image_token_index": 60,
        },
        "text",
    ),
    "Llama4ForConditionalGeneration": (
        "Llama4Config",
        {
            "text_config": TEXT
            | {"intermediate_size_mlp": 24, "num_local_experts": 2, "attention_chunk_size": 8, "moe_layers": [1]},
            "vision_config": EYE
            | {"vision_output_dim": WIDTH, "projector_input_dim": WIDTH, "projector_output_dim": WIDTH}
            | {"intermediate_size": 64},
            "image_token_index": 60,
        },
        "text",
    ),
    "BlipForConditionalGeneration": (
        "BlipConfig",
        {
            "text_config": BERT | {"encoder_hidden_size": WIDTH, "projection_dim": WIDTH},
            "vision_config": EYE | {"projection_dim": WIDTH},
            "projection_dim": WIDTH,
        },
        "both",
    ),
    "CLIPModel": ("CLIPConfig", {"text_config": BERT, "vision_config": EYE, "projection_dim": WIDTH}, "both"),
    "SiglipModel": ("SiglipConfig", {"text_config": BERT, "vision_config": EYE}, "both"),
    "ViTForImageClassification": ("ViTConfig", EYE, "image"),
    "DeiTForImageClassification": ("DeiTConfig", EYE, "image"),
    "BeitForImageClassification": ("BeitConfig", EYE | {"use_relative_position_bias": True}, "image"),
    "Dinov2ForImageClassification": ("Dinov2Config", EYE, "image"),
    "SwinForImageClassification": (
        "SwinConfig",
        {"image_size": 16, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2},
        "image",
    ),
    "ConvNextForImageClassification": (
        "ConvNextConfig",
        {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2, "patch_size": 4},
        "image",
    ),
    "ResNetForImageClassification": (
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "image",
    ),
}
HEARING: dict[str, tuple[str, dict[str, Any], str]] = {
    "WhisperForConditionalGeneration": ("WhisperConfig", SPEECH, "mel"),
    "Speech2TextForConditionalGeneration": (
        "Speech2TextConfig",
        SPEECH | {"conv_channels": 8, "input_feat_per_channel": 8, "input_channels": 1, "max_source_positions": 64},
        "frames",
    ),
    "Wav2Vec2ForCTC": ("Wav2Vec2Config", WAVE, "wave"),
    "HubertForCTC": ("HubertConfig", WAVE, "wave"),
    "ASTForAudioClassification": (
        "ASTConfig",
        {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        | {"patch_size": 4, "frequency_stride": 4, "time_stride": 4, "max_length": 16, "num_mel_bins": 8},
        "spectrum",
    ),
    "MoonshineForConditionalGeneration": (
        "MoonshineConfig",
        {"vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 24, "encoder_num_hidden_layers": 2}
        | {"decoder_num_hidden_layers": 2, "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2}
        | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        "long wave",
    ),
}
