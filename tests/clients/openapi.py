"""schemathesis against `nfl serve` and the document of its routes: no request may find a 5xx, or an answer that contradicts
the document.

An opt-in job, since it needs the network once: python3 -m venv VENV && VENV/bin/pip install schemathesis, then:
VENV/bin/python tests/clients/openapi.py target/release/nfl ../shared/material/derived/stories260K-llama-F32.gguf [EXAMPLES]

Left out are routes that ask other machines (pull, push), and checks of what a document cannot say: whether a well-formed
request makes sense (`positive_data_acceptance`: a model may not exist, or have no tools).
"""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve()
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
]


def run():
    sys.path.append(str(HERE.parent))
    from serving import Served, create_chatty

    if len(sys.argv) not in (3, 4):
        sys.exit(f"usage: {sys.argv[0]} NFL STORIES.gguf [EXAMPLES]")
    program, file = [str(pathlib.Path(word).resolve()) for word in sys.argv[1:3]]
    examples = sys.argv[3] if len(sys.argv) == 4 else "30"
    with Served(program, file) as served:
        create_chatty(served.url, num_predict=LENGTH)
        status = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/openapi.json", "--url", served.url,
                "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", examples,
                "--exclude-path-regex", "^/api/(pull|push)$", "--continue-on-failure", "--request-timeout", "60",
                "--generation-database", "none", "--seed", "1", "--warnings", "off", "--no-color",
            ],
            env={**os.environ, "SCHEMATHESIS_HOOKS": HERE.stem, "PYTHONPATH": str(HERE.parent)},
            cwd=served.folder.name,
        ).returncode
    sys.exit(status)


def settle_models():
    """Lets most requests name a model that is there, since invented names only ever find a 404, and wish for short replies."""
    import schemathesis

    @schemathesis.hook
    def map_body(context, body):
        if not isinstance(body, dict) or context.operation.path in MANAGES:
            return body
        if len(str(body)) % 4:
            body["model"] = "chatty"
        if context.operation.path == "/generate":
            body.setdefault("max_tokens", LENGTH)
        for holder in [body, body.get("options")]:
            for name in holder if isinstance(holder, dict) else []:
                value = holder[name]
                if name in LENGTHS and isinstance(value, int) and (value > LENGTH or value == -1):
                    holder[name] = LENGTH
        return body


LENGTH = 8
LENGTHS = ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "num_predict"]

# What is copied, made and removed here is not to be the model that the others ask.
MANAGES = ["/api/copy", "/api/create", "/api/delete"]

if __name__ == "__main__":
    run()
else:
    settle_models()
