"""The real Python client of OpenAI against `nfl serve`.

An opt-in job, since it needs the network once: python3 -m venv VENV && VENV/bin/pip install openai, then:
VENV/bin/python tests/clients/openai.py target/release/nfl ../shared/material/derived/stories260K-llama-F32.gguf
"""

import asyncio
import json
import math
import pathlib
import sys
from typing import Literal

# This file has the name of the package that it is about.
sys.path = [path for path in sys.path if pathlib.Path(path or ".").resolve() != pathlib.Path(__file__).resolve().parent]
import openai  # noqa: E402
from pydantic import BaseModel  # noqa: E402

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from serving import Checks, Served, arguments, create_chatty  # noqa: E402

program, file = arguments()
check = Checks()
HI = [{"role": "user", "content": "Tell me a story."}]
GREEDY = {"model": "chatty", "messages": HI, "temperature": 0, "max_completion_tokens": 12}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}, "b": {"enum": [3, 4]}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class Pet(BaseModel):
    kind: Literal["cat", "dog"]
    legs: Literal[3, 4]


def fails(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def chats(client):
    @check
    def chats_whole():
        reply = client.chat.completions.create(**GREEDY, seed=1, user="me", metadata={"a": "b"})
        assert reply.choices[0].message.content and reply.choices[0].finish_reason == "length", reply
        assert reply.usage.completion_tokens == 12 and reply.usage.prompt_tokens > 5
        assert reply.id.startswith("chatcmpl-") and reply.system_fingerprint

    @check
    def chats_in_pieces():
        whole = client.chat.completions.create(**GREEDY).choices[0].message.content
        stream = client.chat.completions.create(**GREEDY, stream=True, stream_options={"include_usage": True})
        pieces = list(stream)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces[:-1]) == whole
        assert pieces[0].choices[0].delta.role == "assistant"
        assert pieces[-1].choices == [] and pieces[-1].usage.completion_tokens == 12
        # The client's own assembly takes a reply that the limit cuts off for an error: this one ends with its sentence.
        sentence = {**GREEDY, "max_completion_tokens": 300, "stop": ["."]}
        with client.chat.completions.stream(**sentence) as stream:
            text = "".join(event.delta for event in stream if event.type == "content.delta")
            final = stream.get_final_completion().choices[0]
        assert text == final.message.content and final.finish_reason == "stop", final
        assert text == client.chat.completions.create(**sentence).choices[0].message.content

    @check
    def chats_several_times():
        request = {**GREEDY, "temperature": 1.5}
        reply = client.chat.completions.create(**request, n=3, seed=5)
        assert [choice.index for choice in reply.choices] == [0, 1, 2]
        assert len({choice.message.content for choice in reply.choices}) > 1
        again = client.chat.completions.create(**request, n=3, seed=5)
        assert [c.message.content for c in again.choices] == [c.message.content for c in reply.choices]

    @check
    def tells_probabilities():
        reply = client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=3)
        content = reply.choices[0].logprobs.content
        assert "".join(token.token for token in content).endswith(reply.choices[0].message.content)
        assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in content)

    @check
    def calls_tools():
        for choice in ["required", {"type": "function", "function": {"name": "add"}}]:
            request = {**GREEDY, "tools": [ADD], "tool_choice": choice, "max_completion_tokens": 200}
            reply = client.chat.completions.create(**request, parallel_tool_calls=False)
            [call] = reply.choices[0].message.tool_calls
            assert reply.choices[0].finish_reason == "tool_calls" and call.function.name == "add"
            wanted = json.loads(call.function.arguments)
            assert wanted["a"] in [1, 2] and wanted["b"] in [3, 4], wanted
            with client.chat.completions.stream(**request, parallel_tool_calls=False) as stream:
                events = list(stream)
                [streamed] = stream.get_final_completion().choices[0].message.tool_calls
            assert streamed.function.arguments == call.function.arguments
            assert any(event.type == "tool_calls.function.arguments.done" for event in events)
        turns = [
            *HI,
            {"role": "assistant", "tool_calls": [call.model_dump()]},
            {"role": "tool", "tool_call_id": call.id, "content": "4"},
        ]
        reply = client.chat.completions.create(**{**GREEDY, "messages": turns}, tools=[ADD], tool_choice="none")
        assert reply.choices[0].message.tool_calls is None and reply.choices[0].message.content

    @check
    def keeps_to_schemas():
        request = {**GREEDY, "max_completion_tokens": 60}
        pet = client.chat.completions.parse(**request, response_format=Pet).choices[0].message.parsed
        assert isinstance(pet, Pet), pet
        # Any object may be longer than there is room for; it begins as one in any case.
        reply = client.chat.completions.create(**request, response_format={"type": "json_object"})
        assert reply.choices[0].message.content.lstrip().startswith("{")


def texts(client):
    greedy = {"model": "stories", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 12}

    @check
    def completes():
        whole = client.completions.create(**greedy, echo=True)
        assert whole.choices[0].text.startswith("Once upon a time,") and whole.usage.completion_tokens == 12
        pieces = client.completions.create(**greedy, stream=True)
        assert "Once upon a time" + "".join(p.choices[0].text for p in pieces) == whole.choices[0].text
        several = client.completions.create(**{**greedy, "prompt": ["Once", [1, 403]]}, n=2)
        assert [choice.index for choice in several.choices] == [0, 1, 2, 3]

    @check
    def scores():
        reply = client.completions.create(**{**greedy, "max_tokens": 0}, echo=True, logprobs=2)
        found = reply.choices[0].logprobs
        assert reply.choices[0].text == "Once upon a time" and found.token_logprobs[0] is None
        assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == len(found.text_offset)

    @check
    def embeds():
        for kind in [openai.NOT_GIVEN, "float", "base64"]:
            reply = client.embeddings.create(model="stories", input=["a cat", "a dog"], dimensions=8, encoding_format=kind)
            assert len(reply.data) == 2 and reply.usage.prompt_tokens > 4
        vector = client.embeddings.create(model="stories", input="a cat", dimensions=8).data[0].embedding
        assert len(vector) == 8 and math.isclose(sum(x * x for x in vector), 1, abs_tol=1e-5)


def responds(client):
    greedy = {"model": "chatty", "input": "Tell me a story.", "temperature": 0, "max_output_tokens": 16}

    @check
    def responds_whole():
        first = client.responses.create(**greedy, instructions="Be brief.")
        assert first.output_text and first.status == "incomplete", first
        assert first.incomplete_details.reason == "max_output_tokens" and first.usage.output_tokens == 16
        second = client.responses.create(**greedy, previous_response_id=first.id)
        assert second.usage.input_tokens > first.usage.input_tokens
        assert client.responses.retrieve(first.id).output_text == first.output_text
        items = list(client.responses.input_items.list(first.id))
        assert items[0].content[0].text == "Tell me a story."
        client.responses.delete(first.id)
        fails(openai.NotFoundError, lambda: client.responses.retrieve(first.id))

    @check
    def responds_in_events():
        # The client's own assembly knows of no end but `response.completed`: this answer ends with its sentence.
        sentence = {**greedy, "max_output_tokens": 300, "extra_body": {"stop": ["."]}}
        with client.responses.stream(**sentence) as stream:
            events = list(stream)
            final = stream.get_final_response()
        assert [event.sequence_number for event in events] == list(range(len(events)))
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == final.output_text and events[0].type == "response.created", events
        cut = list(client.responses.create(**greedy, stream=True))
        assert cut[-1].type == "response.incomplete", cut[-1]
        assert cut[-1].response.incomplete_details.reason == "max_output_tokens"

    @check
    def responds_with_calls_and_schemas():
        tool = {"type": "function", **ADD["function"]}
        request = {**greedy, "max_output_tokens": 200}
        reply = client.responses.create(**request, tools=[tool], tool_choice="required", parallel_tool_calls=False)
        [call] = [item for item in reply.output if item.type == "function_call"]
        assert call.name == "add" and set(json.loads(call.arguments)) == {"a", "b"}
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "4"}
        request = {**greedy, "input": [output], "previous_response_id": reply.id}
        assert client.responses.create(**request, tools=[tool], tool_choice="none").output_text
        pet = client.responses.parse(**{**greedy, "max_output_tokens": 60}, text_format=Pet)
        assert isinstance(pet.output_parsed, Pet), pet

    @check
    def responds_later():
        begun = client.responses.create(**{**greedy, "max_output_tokens": 400}, background=True)
        assert begun.status == "in_progress"
        assert client.responses.cancel(begun.id).status in ["cancelled", "incomplete"]


def refuses(client):
    @check
    def lists_models():
        names = {model.id.removesuffix(":latest") for model in client.models.list()}
        assert names == {"stories", "chatty"}, names
        assert client.models.retrieve("chatty").object == "model"

    @check
    def raises_typed_exceptions():
        missing = fails(openai.NotFoundError, lambda: client.chat.completions.create(**{**GREEDY, "model": "none"}))
        assert missing.code == "model_not_found", missing
        long = [{"role": "user", "content": "story " * 600}]
        for stream in [False, True]:
            request = {**GREEDY, "messages": long, "stream": stream}
            error = fails(openai.BadRequestError, lambda: client.chat.completions.create(**request))
            assert error.code == "context_length_exceeded" and error.body["n_prompt_tokens"] > error.body["n_ctx"]
        hot = fails(openai.BadRequestError, lambda: client.chat.completions.create(**{**GREEDY, "temperature": -1}))
        assert "temperature" in hot.message
        image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]
        error = fails(openai.BadRequestError, lambda: client.chat.completions.create(**{**GREEDY, "messages": image}))
        assert error.param == "messages[0].content[0]"
        fails(openai.BadRequestError, lambda: client.chat.completions.create(**GREEDY, extra_body={"no_such": 1}))
        fails(openai.NotFoundError, lambda: client.models.retrieve("none"))


async def asks_at_once(url):
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
    stream = await client.chat.completions.create(**{**GREEDY, "max_completion_tokens": 400}, stream=True)
    async for _ in stream:
        break
    await stream.close()
    replies = await asyncio.gather(*(client.chat.completions.create(**GREEDY) for _ in range(8)))
    assert len({reply.choices[0].message.content for reply in replies}) == 1


with Served(program, file) as served:
    create_chatty(served.url)
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as one:
        for part in [chats, texts, responds, refuses]:
            part(one)

    @check
    def runs_side_by_side():
        asyncio.run(asks_at_once(served.url))

check.finish()
