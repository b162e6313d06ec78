"""EleutherAI's lm-evaluation-harness (`local-completions`) against `nfl serve`, held to a second implementation of the model.

An opt-in job, since it needs the network once: python3 -m venv VENV && VENV/bin/pip install "lm-eval[api]" transformers
sentencepiece protobuf, then: VENV/bin/python tests/clients/lm_eval_local.py target/release/nfl
../shared/material/derived/stories260K-llama-F32.gguf ../shared/material/derived/stories260K-hf-llama

The task is a local one: a sentence and how it may go on. The judge is the model's checkpoint computed with numpy in double
precision; that the server's own numbers are those of the engine in its process is a test of tests/wire/openai/real.rs.
"""

import json
import os
import pathlib
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
import lm_eval  # noqa: E402
import numpy as np  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from serving import Checks, Served  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

TASK = [
    {"context": "Once upon a time there was a little", "choices": ["girl named Lily.", "stone of steel.", "g"]},
    {"context": "Lily and Tom went to the", "choices": ["park to play.", "moon to buy a law.", "park"]},
    {"context": "The sun was", "choices": ["shining and the sky was blue.", "eating the number seven."]},
]
YAML = """
task: nfl_local
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


class Judge:
    """A llama in numpy: the logarithm of the probability of each token after the first."""

    def __init__(self, folder):
        config = json.loads((folder / "config.json").read_text())
        self.weights = {key: value.astype(np.float64) for key, value in load_file(folder / "model.safetensors").items()}
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.groups = self.heads // config["num_key_value_heads"]
        self.width = config["hidden_size"] // self.heads
        self.epsilon = config["rms_norm_eps"]
        rope = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
        self.frequencies = rope ** (-np.arange(0, self.width, 2) / self.width)

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * self.weights[name]

    def turn(self, x):
        """Rotary positions, halves apart, of (tokens, heads, width)."""
        angle = np.outer(np.arange(len(x)), self.frequencies)[:, None, :]
        first, second = np.split(x, 2, axis=-1)
        return np.concatenate([first * np.cos(angle) - second * np.sin(angle),
                               second * np.cos(angle) + first * np.sin(angle)], axis=-1)

    def attend(self, x, at):
        q, k, v = (
            (x @ self.weights[f"{at}.{name}_proj.weight"].T).reshape(len(x), -1, self.width) for name in "qkv"
        )
        q, k, v = self.turn(q), np.repeat(self.turn(k), self.groups, 1), np.repeat(v, self.groups, 1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(self.width)
        scores += np.triu(np.full((len(x), len(x)), -np.inf), 1)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        found = np.einsum("hij,jhd->ihd", shares, v).reshape(len(x), -1)
        return found @ self.weights[f"{at}.o_proj.weight"].T

    def __call__(self, tokens):
        x = self.weights["model.embed_tokens.weight"][tokens]
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            x = x + self.attend(self.norm(x, f"{at}.input_layernorm.weight"), f"{at}.self_attn")
            y = self.norm(x, f"{at}.post_attention_layernorm.weight")
            gate, up = (y @ self.weights[f"{at}.mlp.{name}_proj.weight"].T for name in ["gate", "up"])
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.weights[f"{at}.mlp.down_proj.weight"].T
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        logits = self.norm(x, "model.norm.weight") @ head.T
        logits -= logits.max(-1, keepdims=True)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return logprobs[np.arange(len(tokens) - 1), tokens[1:]], logprobs.argmax(-1)[:-1] == tokens[1:]


if len(sys.argv) != 4:
    sys.exit(f"usage: {sys.argv[0]} NFL STORIES.gguf CHECKPOINT")
program, file, checkpoint = (pathlib.Path(word).resolve() for word in sys.argv[1:])
check = Checks()

# Without the roundings to 16 bits of the default (about 3e-3 here), which the engine in its process has as well.
EXACT = ["--kv", "f32", "--no-flash-attention"]

with Served(str(program), str(file), *EXACT) as served, tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / "data.jsonl").write_text("".join(json.dumps(each) + "\n" for each in TASK))
    (folder / "task.yaml").write_text(YAML.format(data=folder / "data.jsonl"))
    result = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={
            "model": "stories", "base_url": f"{served.url}/v1/completions", "tokenizer": str(checkpoint),
            "max_length": 512, "num_concurrent": 1, "max_retries": 1,
        },
        batch_size=4, tasks=["nfl_local"], task_manager=TaskManager(include_path=str(folder)), log_samples=True,
        cache_requests=False, bootstrap_iters=0,
    )

    @check
    def likelihoods_are_those_of_a_second_implementation():
        judge, tokenizer = Judge(checkpoint), AutoTokenizer.from_pretrained(str(checkpoint))
        most = 0
        for sample in result["samples"]["nfl_local"]:
            pairs = zip(sample["arguments"], sample["filtered_resps"], strict=True)
            for (context, choice), (found, is_greedy) in pairs:
                # As the harness cuts them: the context's tokens, then the rest of the whole's.
                whole = tokenizer.encode(context + choice, add_special_tokens=False)
                start = len(tokenizer.encode(context, add_special_tokens=False))
                scores, best = judge(np.array(whole))
                expected = scores[start - 1:].sum()
                most = max(most, abs(expected - float(found)))
                assert abs(expected - float(found)) < 1e-3, (context, choice, expected, found)
                assert bool(is_greedy) == bool(best[start - 1:].all()), (choice, is_greedy)
        print(f"largest difference: {most:.2e}; accuracy {result['results']['nfl_local']['acc,none']}")

check.finish()
