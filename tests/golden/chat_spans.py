#!/usr/bin/env python3
"""Makes chat_spans.json: what the assistant says in rendered conversations, as transformers marks it.

usage: chat_spans.py TEMPLATES   (needs transformers and jinja2; a folder of real chat templates)

`apply_chat_template(return_assistant_tokens_mask=True)` marks what stands between `{% generation %}` and
`{% endgeneration %}`. Published templates lack these tags, so they are put here around what the assistant says and the
token that ends its turn; the templates themselves are not stored.
"""

import json
import sys
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

TALK = [
    {"role": "user", "content": "Hi [there]"},
    {"role": "assistant", "content": "Hello!\nWhat now?"},
    {"role": "user", "content": "Höre zu"},
    {"role": "assistant", "content": "Ja – 好"},
]

# File, begin and end of a sequence, and texts of the template with what stands in their place.
TEMPLATES = {
    "Qwen-Qwen2.5-7B-Instruct": (
        "",
        "<|im_end|>",
        [
            (
                """    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}""",
                """    {%- if message.role == "assistant" and not message.tool_calls %}
        {{- '<|im_start|>assistant\\n' }}{% generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}
    {%- elif (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}""",
            )
        ],
    ),
    "meta-llama-Llama-3.2-3B-Instruct": (
        "<|begin_of_text|>",
        "<|eot_id|>",
        [
            (
                """        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}""",
                """        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {%- if message['role'] == 'assistant' %}{% generation %}{{- message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}
        {%- else %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endif %}""",
            )
        ],
    ),
    "google-gemma-2-2b-it": (
        "<bos>",
        "<end_of_turn>",
        [
            (
                """{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}""",
                """{{ '<start_of_turn>' + role + '\n' }}{% if role == 'model' %}{% generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{% else %}{{ message['content'] | trim + '<end_of_turn>' }}{% endif %}{{ '\n' }}""",
            )
        ],
    ),
}


def main():
    cases = []
    for name, (begin, end, changes) in TEMPLATES.items():
        template = (Path(sys.argv[1]) / f"{name}.jinja").read_text()
        tokens = {"bos_token": begin, "eos_token": end, "date_string": "26 Jul 2024"}
        plain = render_jinja_template([TALK], chat_template=template, **tokens)[0][0]
        for old, new in changes:
            assert old in template, f"{name}: not found: {old}"
            template = template.replace(old, new)
        texts, spans = render_jinja_template(
            [TALK], chat_template=template, return_assistant_tokens_mask=True, **tokens
        )
        text = texts[0]
        assert text == plain, f"{name}: the tags change the text\n{plain!r}\n{text!r}"
        said = [text[first:last] for first, last in spans[0]]
        given, place = [], 0
        for first, last in spans[0]:
            given.append(text[place:first])
            place = last
        cases.append({
            "template": name, "begin": begin, "end": end, "given": given, "said": said, "rest": text[place:],
        })
    path = Path(__file__).parent / "chat_spans.json"
    path.write_text(json.dumps({"messages": TALK, "cases": cases}, ensure_ascii=False, indent=1) + "\n")


main()
