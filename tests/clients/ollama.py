"""The real Python client of Ollama against `nfl serve`, and langchain-ollama when it is there.

An opt-in job, since it needs the network once: python3 -m venv VENV && VENV/bin/pip install ollama langchain-ollama,
then: VENV/bin/python tests/clients/ollama.py target/release/nfl ../shared/material/derived/stories260K-llama-F32.gguf
"""

import asyncio
import pathlib
import sys

# This file has the name of the package that it is about.
sys.path = [path for path in sys.path if pathlib.Path(path or ".").resolve() != pathlib.Path(__file__).resolve().parent]
import ollama  # noqa: E402

sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from serving import CHATML, Checks, Registry, Served, arguments, parsed  # noqa: E402

program, file = arguments()
check = Checks()
GREEDY = {"temperature": 0, "num_predict": 12, "seed": 1}
HI = [{"role": "user", "content": "Tell me a story."}]


def run(client, url):
    @check
    def lists_and_shows():
        models = client.list().models
        assert [model.model for model in models] == ["stories:latest"], models
        assert models[0].details.quantization_level == "F32" and models[0].modified_at is not None
        shown = client.show("stories")
        assert shown.modelinfo["general.architecture"] == "llama" and shown.capabilities == ["completion"]

    @check
    def generates():
        whole = client.generate("stories", "Once upon a time", raw=True, options=GREEDY)
        assert whole.done and whole.done_reason == "length" and whole.eval_count == 12, whole
        assert whole.total_duration > 0 and whole.prompt_eval_count == 5
        pieces = list(client.generate("stories", "Once upon a time", raw=True, options=GREEDY, stream=True))
        assert "".join(piece.response for piece in pieces) == whole.response
        assert pieces[-1].done and not any(piece.done for piece in pieces[:-1])

    @check
    def tells_probabilities():
        reply = client.generate(
            "stories", "Once", raw=True, options=GREEDY, logprobs=True, top_logprobs=3
        )
        assert len(reply.logprobs) == 12 and all(len(each.top_logprobs) == 3 for each in reply.logprobs)
        assert all(each.logprob <= 0 for each in reply.logprobs)

    @check
    def creates():
        progress = list(
            client.create("chatty", from_="stories", template=CHATML, system="Be short.",
                          parameters={"num_predict": 16, "stop": ["<|im_end|>"]}, stream=True)
        )
        assert progress[-1].status == "success", progress
        shown = client.show("chatty")
        assert shown.template == CHATML and "num_predict" in shown.parameters, shown
        digest = client.create_blob(file)
        assert client.create("uploaded", files={"model.gguf": digest}).status == "success"
        same = [client.generate(name, "Once", raw=True, options=GREEDY).response for name in ("stories", "uploaded")]
        assert same[0] == same[1]
        assert client.create("small", from_="stories", quantize="q8_0").status == "success"
        assert client.show("small").details.quantization_level == "Q8_0"

    @check
    def chats():
        reply = client.chat("chatty", messages=HI, options=GREEDY)
        assert reply.message.role == "assistant" and reply.message.content, reply
        pieces = list(client.chat("chatty", messages=HI, options=GREEDY, stream=True))
        assert "".join(piece.message.content or "" for piece in pieces) == reply.message.content

    @check
    def keeps_a_form():
        schema = {
            "type": "object",
            "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 9}, "name": {"enum": ["a", "b"]}},
            "required": ["age", "name"],
            "additionalProperties": False,
        }
        reply = client.chat("chatty", messages=HI, format=schema, options={"num_predict": 64, "seed": 3})
        value = parsed(reply.message.content)
        assert 0 <= value["age"] <= 9 and value["name"] in ("a", "b"), value
        reply = client.generate("stories", "x", format="json", options={"num_predict": 200, "temperature": 0})
        assert reply.done_reason == "length" or isinstance(parsed(reply.response), dict), reply

    @check
    def offers_tools():
        def add(a: int, b: int) -> int:
            """Adds two numbers.

            Args:
              a: the first
              b: the second
            """
            return a + b

        reply = client.chat("chatty", messages=HI, tools=[add], options=GREEDY)
        for call in reply.message.tool_calls or []:
            assert call.function.name == "add" and set(call.function.arguments) == {"a", "b"}
        turn = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]}
        result = {"role": "tool", "content": "3", "tool_name": "add"}
        assert client.chat("chatty", messages=[*HI, turn, result], tools=[add], options=GREEDY).done

    @check
    def embeds():
        reply = client.embed("stories", ["The dog ran.", "The cat sat."])
        assert len(reply.embeddings) == 2 and len(reply.embeddings[0]) == 64, reply
        assert abs(sum(number * number for number in reply.embeddings[0]) - 1) < 1e-5
        assert len(client.embed("stories", "x", dimensions=8).embeddings[0]) == 8
        assert len(client.embeddings("stories", "x").embedding) == 64

    @check
    def loads_and_unloads():
        client.generate("stories", keep_alive=-1)
        loaded = {model.model: model for model in client.ps().models}
        assert loaded["stories:latest"].context_length > 0 and loaded["stories:latest"].expires_at.year > 2200
        assert client.generate("stories", keep_alive=0).done_reason == "unload"
        assert "stories:latest" not in {model.model for model in client.ps().models}

    @check
    def copies_pushes_pulls_deletes():
        name = f"{Registry.start()}/me/stories:x"
        assert client.copy("stories", name).status == "success"
        assert client.push(name, insecure=True).status == "success"
        assert client.delete(name).status == "success"
        steps = list(client.pull(name, insecure=True, stream=True))
        assert steps[0].status == "pulling manifest" and steps[-1].status == "success", steps
        assert client.pull(name, insecure=True).status == "success"
        assert name in [model.model for model in client.list().models]
        client.delete(name)

    @check
    def refuses():
        def refused(ask, status, words):
            try:
                ask()
            except ollama.ResponseError as error:
                assert error.status_code == status and words in error.error, (error.status_code, error.error)
                return
            raise AssertionError("nothing was refused")

        refused(lambda: client.generate("none", "x"), 404, "model 'none' not found")
        refused(lambda: client.chat("none", messages=HI), 404, "model 'none' not found")
        refused(lambda: list(client.chat("none", messages=HI, stream=True)), 404, "model 'none' not found")
        refused(lambda: client.chat("stories", messages=HI, tools=[{"type": "function", "function": {"name": "f"}}]),
                400, "does not support tools")
        refused(lambda: client.chat("stories", messages=HI, think=True), 400, "does not support thinking")
        refused(lambda: client.generate("stories", "word " * 4000, raw=True), 400, "the context has room for")
        refused(lambda: client.generate("stories", "x", options={"num_ctx": "big"}), 400, "must be of type integer")
        refused(lambda: client.show("none"), 404, "not found")
        refused(lambda: client.delete("none"), 404, "not found")
        refused(lambda: client.copy("none", "x"), 404, "not found")
        refused(lambda: client.pull("127.0.0.1:1/a/b", insecure=True), 500, "")

    @check
    def serves_the_asynchronous_client():
        async def ask():
            other = ollama.AsyncClient(host=url)
            whole = await other.generate("stories", "Once", raw=True, options=GREEDY)
            pieces = [
                piece.response
                async for piece in await other.generate("stories", "Once", raw=True, options=GREEDY, stream=True)
            ]
            together = await asyncio.gather(
                *(other.generate("stories", "Once", raw=True, options=GREEDY) for _ in range(4))
            )
            return whole.response, "".join(pieces), {reply.response for reply in together}

        whole, pieces, together = asyncio.run(ask())
        assert whole == pieces and together == {whole}, (whole, pieces, together)


def run_langchain(url):
    try:
        from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
    except ImportError:
        print("skipped: no langchain-ollama")
        return

    @check
    def serves_langchain():
        llm = OllamaLLM(model="stories", base_url=url, temperature=0, num_predict=8)
        assert llm.invoke("Once upon a time") == "".join(llm.stream("Once upon a time"))
        chat = ChatOllama(model="chatty", base_url=url, temperature=0, num_predict=8)
        reply = chat.invoke("Hi")
        assert reply.response_metadata["done_reason"] and reply.usage_metadata["output_tokens"] > 0, reply
        assert "".join(str(piece.content) for piece in chat.stream("Hi")) == reply.content
        vectors = OllamaEmbeddings(model="stories", base_url=url).embed_documents(["a", "b"])
        assert len(vectors) == 2 and len(vectors[0]) == 64

    @check
    def structures_in_langchain():
        schema = {"title": "age", "type": "object", "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 9}},
                  "required": ["age"], "additionalProperties": False}
        chat = ChatOllama(model="chatty", base_url=url, num_predict=64)
        value = chat.with_structured_output(schema, method="json_schema").invoke("Hi")
        assert 0 <= value["age"] <= 9, value


with Served(program, file) as served:
    run(ollama.Client(host=served.url), served.url)
    run_langchain(served.url)
check.finish()
