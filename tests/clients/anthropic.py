"""The real Python client of Anthropic against `nfl serve`.

An opt-in job, since it needs the network once: python3 -m venv VENV && VENV/bin/pip install anthropic,
then: VENV/bin/python tests/clients/anthropic.py target/release/nfl ../shared/material/derived/stories260K-llama-F32.gguf
"""

import os
import pathlib
import subprocess
import sys

# This file has the name of the package that it is about.
sys.path = [path for path in sys.path if pathlib.Path(path or ".").resolve() != pathlib.Path(__file__).resolve().parent]
import anthropic  # noqa: E402

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from serving import CHATML, Checks, Served, arguments  # noqa: E402

program, file = arguments()
check = Checks()
HI = [{"role": "user", "content": "Tell me a story."}]
# Thoughts begin in the prompt, and a call that has to come is held to the notation.
THOUGHTS = "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n{% endif %}"
TEMPLATE = CHATML.replace("{{ message.content }}", THOUGHTS + "{{ message.content }}").replace(
    "assistant\n{% endif %}", "assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
)
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a place.",
    "input_schema": {
        "type": "object",
        "properties": {"place": {"enum": ["Bonn", "Rome"]}},
        "required": ["place"],
        "additionalProperties": False,
    },
}


def create(served):
    """A model with a chat template."""
    modelfile = pathlib.Path(served.folder.name, "Modelfile")
    modelfile.write_text(f'FROM stories\nPARAMETER temperature 0\nTEMPLATE """{TEMPLATE}"""\n')
    environment = {**os.environ, "NFL_HOME": served.folder.name}
    subprocess.run([program, "create", "told", "--file", modelfile, "--quiet"], env=environment, check=True)


def run(client):
    def ask(**more):
        return client.messages.create(**{"model": "told", "max_tokens": 16, "messages": HI, **more})

    @check
    def messages():
        message = ask(system=[{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}])
        assert message.type == "message" and message.role == "assistant" and message.model == "told"
        assert message.content[0].type == "text" and message.content[0].text, message
        assert message.stop_reason == "max_tokens" and message.usage.output_tokens == 16

    @check
    def cache():
        first, second = ask(), ask()
        assert second.content == first.content
        assert second.usage.cache_read_input_tokens > 0
        total = [m.usage.input_tokens + m.usage.cache_read_input_tokens for m in (first, second)]
        assert total[0] == total[1], total

    @check
    def stream():
        whole = ask()
        with client.messages.stream(model="told", max_tokens=16, messages=HI) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert text == whole.content[0].text == final.content[0].text
        assert final.stop_reason == "max_tokens" and final.usage.output_tokens == 16
        names = [event.type for event in ask(stream=True)]
        assert names[:2] == ["message_start", "content_block_start"], names
        assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"], names

    @check
    def stop_sequences():
        text = ask().content[0].text
        word = text.split()[1]
        message = ask(stop_sequences=["zzz", word])
        assert message.stop_reason == "stop_sequence" and message.stop_sequence == word, message

    @check
    def tools():
        choice = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
        # A small model would think for ever.
        off = {"type": "disabled"}
        message = ask(tools=[WEATHER], tool_choice=choice, max_tokens=256, thinking=off)
        call = next(block for block in message.content if block.type == "tool_use")
        assert message.stop_reason == "tool_use", message
        assert call.name == "get_weather" and call.input["place"] in ("Bonn", "Rome") and call.id, call
        result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Sunny."}]}
        turns = [*HI, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        assert ask(messages=turns, tools=[WEATHER]).type == "message"
        with client.messages.stream(
            model="told", max_tokens=256, messages=HI, tools=[WEATHER], tool_choice={"type": "any"}, thinking=off
        ) as stream:
            final = stream.get_final_message()
        assert any(block.type == "tool_use" and block.input["place"] for block in final.content), final

    @check
    def thinking():
        thinking = {"type": "enabled", "budget_tokens": 32}
        message = ask(thinking=thinking, max_tokens=64)
        assert message.content[0].type == "thinking" and message.content[0].signature, message.content[:1]
        with client.messages.stream(model="told", max_tokens=64, messages=HI, thinking=thinking) as stream:
            events = [event.type for event in stream]
        assert "thinking" in events and "signature" in events, set(events)

    @check
    def count_tokens():
        count = client.messages.count_tokens(model="told", messages=HI)
        usage = ask().usage
        assert count.input_tokens == usage.input_tokens + usage.cache_read_input_tokens

    @check
    def errors():
        def refused(kind, **more):
            try:
                ask(**more)
            except kind as error:
                assert error.body["type"] == "error" and error.request_id == error.body["request_id"], error.body
                return error.body["error"]
            raise AssertionError(f"no {kind.__name__}")

        assert refused(anthropic.NotFoundError, model="nobody")["type"] == "not_found_error"
        long = [{"role": "user", "content": "story " * 50_000}]
        assert "prompt is too long" in refused(anthropic.BadRequestError, messages=long)["message"]
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
        words = refused(anthropic.BadRequestError, messages=[{"role": "user", "content": [image]}])["message"]
        assert "image input is not supported" in words, words
        assert refused(anthropic.BadRequestError, messages=[])["type"] == "invalid_request_error"


with Served(program, file) as served:
    create(served)
    run(anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0))
check.finish()
