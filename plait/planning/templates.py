"""Chat templates that recipes may call by name, written from the formats that their makers describe."""

from __future__ import annotations

__all__ = ["TEMPLATES"]

_CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

_LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}
"""

# A system message has no place of its own: it stands before the user's text that follows it.
_MISTRAL = """\
{{- bos_token -}}
{%- set before = namespace(text='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set before.text = message.content + '\\n\\n' -%}
{%- elif message.role == 'user' -%}
{{ '[INST] ' + before.text + message.content + ' [/INST]' }}{%- set before.text = '' -%}
{%- else -%}{{ ' ' + message.content + eos_token }}{%- endif -%}
{%- endfor -%}
"""

_ALPACA = """\
{%- if messages[0].role == 'system' -%}{{ messages[0].content + '\\n\\n' }}
{%- else -%}
{{ 'Below is an instruction that describes a task. Write a response that appropriately completes the request.\\n\\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{{ '### Instruction:\\n' + message.content + '\\n\\n' }}
{%- elif message.role == 'assistant' -%}{{ '### Response:\\n' + message.content + eos_token + '\\n\\n' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '### Response:\\n' }}{%- endif -%}
"""

_EXAONE = """\
{%- if messages[0].role != 'system' -%}{{ '[|system|][|endofturn|]\\n' }}{%- endif -%}
{%- for message in messages -%}
{{ '[|' + message.role + '|]' + message.content }}
{%- if message.role != 'user' -%}{{ '[|endofturn|]' }}{%- endif -%}
{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '[|assistant|]' }}{%- endif -%}
"""

TEMPLATES = {"alpaca": _ALPACA, "chatml": _CHATML, "exaone": _EXAONE, "llama3": _LLAMA3, "mistral": _MISTRAL}
"""Name -> Jinja. They take messages of text alone, with the roles system, user and assistant."""
