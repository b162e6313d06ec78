"""Makes chat_templates.tsv: what transformers renders for every template of a directory and every conversation.

The judge is `render_jinja_template` of transformers 5.23.0 with jinja2 3.1.6; neither torch nor a network is needed:

    python3 -m venv venv && venv/bin/pip install jinja2==3.1.6 transformers==5.23.0 numpy
    venv/bin/python chat_templates.py DIRECTORY_OF_JINJA_FILES [--texts DIRECTORY]

One line a template: its file name, then CASE=HASH for each conversation and each of enable_thinking unset, true and
false (suffixes "", "+" and "-"). HASH is the first 16 hexadecimal digits of the sha256 of the rendered text, or
"error" when rendering raised. The texts themselves are kept out of the repository; --texts writes them elsewhere.
"""

import argparse
import datetime
import hashlib
import json
import pathlib

from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
THINKING = {"": {}, "+": {"enable_thinking": True}, "-": {"enable_thinking": False}}


def freeze_clock(unix_seconds):
    """`strftime_now` reads `datetime.now()`; the golden texts must not depend on the day they were made."""
    moment = datetime.datetime.fromtimestamp(unix_seconds, datetime.timezone.utc).replace(tzinfo=None)

    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return moment

    chat_template_utils.datetime = Frozen


def render(template, fixture, conversation, thinking):
    texts, _ = chat_template_utils.render_jinja_template(
        conversations=[conversation["messages"]],
        tools=fixture["tools"] if conversation.get("tools") else None,
        chat_template=template,
        add_generation_prompt=conversation.get("add_generation_prompt", True),
        bos_token=fixture["bos_token"],
        eos_token=fixture["eos_token"],
        **conversation.get("extra", {}),
        **thinking,
    )
    return texts[0]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("directory", type=pathlib.Path)
    arguments.add_argument("--texts", type=pathlib.Path)
    arguments = arguments.parse_args()
    fixture = json.loads((HERE / "chat_conversations.json").read_text(encoding="utf-8"))
    freeze_clock(fixture["now_unix_seconds"])
    lines = []
    for path in sorted(arguments.directory.glob("*.jinja")):
        template = path.read_bytes().decode("utf-8")
        columns = [path.name]
        for name, conversation in fixture["conversations"].items():
            for suffix, thinking in THINKING.items():
                try:
                    text = render(template, fixture, conversation, thinking)
                    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
                except Exception as error:  # every way to fail counts as one: the template refuses
                    text, digest = f"error: {type(error).__name__}: {error}", "error"
                columns.append(f"{name}{suffix}={digest}")
                if arguments.texts:
                    arguments.texts.mkdir(parents=True, exist_ok=True)
                    (arguments.texts / f"{path.stem}.{name}{suffix}.txt").write_bytes(text.encode("utf-8"))
        lines.append("\t".join(columns))
    (HERE / "chat_templates.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
