#!/usr/bin/env python3
"""Runs llama-server's own test suite against `nfl serve` and prints what passes, what fails, and why.

usage: llama_server_suite.py NFL LLAMA_CPP MATERIAL [--venv DIR] [--keep FILE] [PYTEST-ARGUMENT …]

NFL is the program, LLAMA_CPP a source tree of llama.cpp, MATERIAL the folder with the models. The suite needs Python
packages: with --venv they are installed into that folder once, else they are taken from this Python. Further
arguments go to pytest, such as `unit/test_basic.py`. --keep writes the table into a file, too.

The suite runs unmodified from a copy; llama-server-shim takes llama-server's place. REASONS says of tests that fail why
that is so; a failure without a reason is one to be mended.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import venv
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Files whose tests all need what is not here; they would wait for it a minute each.
NOT_RUN = {"test_vision_api": "images and a model from the network; no model sees in nfl"}

# A pattern of FILE::TEST, and why such a test cannot pass.
REASONS = [
    (r"result_with_image|vision_format_accepted", "the same words, but 400: the request is wrong, not the server"),
    (r"test_vision_api|_vision_", "no model that sees, in the material or in nfl"),
    (r"test_router", "llama-server's own management of models; nfl has stored names and Ollama's dialect"),
    (r"test_mcp_servers|test_tools_builtin|test_proxy", "tools of llama-server's web page"),
    (r"test_compat_gcp", "Google's Vertex AI sets how a server is called; a proxy's work"),
    (r"test_return_progress|responses_stream_with_llama_telemetry", "OpenAI's streams tell progress once, when the prompt is read; nfl's scheduler cuts prompts, not a flag"),
    (r"test_sleep", "keep_alive unloads models; there is no server-wide sleep"),
    (r"test_slot_save", "states are saved by the worker of its own accord, not into files of clients"),
    (r"test_lora", "needs an adapter of the suite's own, from the network; adapters belong to models"),
    (r"test_load_split_model|test_spec", "needs a model from the network"),
    (r"multiple_addresses", "one address"),
    (r"test_no_ui", "the page cannot be switched off"),
    (r"test_server_slots|test_metrics_disabled", "/slots and /metrics cannot be switched off"),
    (
        r"test_server_models|model_aliases_and_tags|test_chat_completion_stream\[",
        "names choose models: the shim stores several for one, and any of them is the one that is meant",
    ),
    (r"test_metrics_(prometheus|prompt_proc|predicted|embedding)", "wants a header in capitals; names of headers have no case"),
    (r"ctx_shift_enabled", "contexts shift in Ollama's dialect only"),
    (r"short_prompt\[-1", "one token more: the last one of a full context need not be in it"),
    (r"post_sampling|post_backend", "only the model's own probabilities are told"),
    (r"test_completion_unified|kv_keep_only_active", "each conversation has its own cache"),
    (r"test_cors_options", "pages of other origins may not use this server: 403; llama-server lets all in"),
    (r"test_cors_origins_localhost_rejects", "rejected at the preflight, too: 403 instead of 200 without a header"),
    (r"test_cors_origins_(localhost_reflects|defaults)", "as wanted, but preflights end with 204, not 200"),
    (r"test_cors_proxy", "a proxy for llama-server's web page"),
    (r"static_assets", "the built-in page has no service worker and no manifest"),
    (r"test_local_media_file", "no model that sees, in the material or in nfl"),
    (r"test_stream::", "streams that are resumed by llama-server's name for them, of a model from the network"),
    (r"test_cancel_request", "a model is loaded when it is asked for: the client leaves before there is a slot"),
    (r"anthropic_tool_(use|streaming)|streaming_content_block", "tools and a template without: refused, not passed over"),
    (r"test_chat_template($|_assistant|_continue)", "__verbose is told to requests that ask for it, by no flag"),
    (r"embedding_pooling_none", "models that do not pool are pooled by the mean; no flag says none"),
    (r"embedding_error_prompt_too_long", "refused with both numbers, in other words"),
    (r"embedding_usage", "counts the tokens of BERT's vocabulary; stories260K plays the model"),
    (r"test_rerank($|_tei_format$)", "which document wins is the model's judgement; weights by chance play the model"),
    (r"test_rerank_usage", "counts the tokens of Jina's vocabulary"),
    (r"inside_prompt.meta", "date_string is llama-server's own variable; without it the template has a date of its own"),
    (r"inside_prompt.fireworks", "the date is there, in the form that the model's makers give it (2026-11-21T…)"),
    (r"empty_messages", "Anthropic's own servers refuse an empty conversation"),
]


def prepare(arguments, work):
    """A Python with the suite's packages, and a copy of the suite; returns both."""
    python = Path(sys.executable)
    source = arguments.llama_cpp / "tools/server/tests"
    if arguments.venv:
        python = arguments.venv / "bin/python"
        if not python.exists():
            venv.create(arguments.venv, with_pip=True)
            packages = ["-r", str(source / "requirements.txt"), "pytest-timeout", "gguf"]
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    # Tests name templates by their place in the source tree.
    suite = work / "tools/server/tests"
    shutil.copytree(source, suite, ignore=shutil.ignore_patterns("tmp", "__pycache__"))
    (work / "models").symlink_to(arguments.llama_cpp / "models")
    return python, suite


def models(arguments, python, homes):
    """Makes the models that the material lacks."""
    shutil.copy(HERE.parent / "golden/reranker.gguf", homes / "reranker.gguf")
    script = f"""
import gguf
reader = gguf.GGUFReader({str(arguments.material / "oracle/stories260K.gguf")!r})

def write(name, more):
    writer = gguf.GGUFWriter({str(homes)!r} + "/" + name, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        inner = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for key, value in more.items():
        writer.add_uint32(key, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

# Tokens for letters that no English text has.
gap = {{"prefix": 509, "suffix": 510, "middle": 511}}
write("infill.gguf", {{f"tokenizer.ggml.{{name}}_token_id": token for name, token in gap.items()}})
for number, name in enumerate(("none", "mean", "cls", "last")):
    write(f"embeds-{{name}}.gguf", {{"llama.pooling_type": number}})
"""
    subprocess.run([python, "-c", script], check=True)


def run(arguments, python, suite, homes, reports):
    """Runs each file of tests apart, so that one that breaks off takes no other with it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "LLAMA_SERVER_BIN_PATH": str(HERE / "llama-server-shim"),
        "NFL_PROGRAM": str(arguments.nfl.resolve()),
        "NFL_MATERIAL": str(arguments.material.resolve()),
        "NFL_HOMES": str(homes),
        "PORT": str(port),
    }
    command = [python, "-m", "pytest", "-q", "--tb=short", "--timeout=60"]
    # As the suite's own script does: slow tests fetch models of gigabytes.
    command += ["-m", "not slow"]
    chosen = [argument for argument in arguments.pytest if argument.startswith("unit/")]
    further = [argument for argument in arguments.pytest if argument not in chosen]
    if not chosen:
        files = sorted((suite / "unit").glob("test_*.py"))
        chosen = [f"unit/{file.name}" for file in files if file.stem not in NOT_RUN]
    for number, file in enumerate(chosen):
        report = f"--junitxml={reports / f'{number:03}.xml'}"
        subprocess.run([*command, report, *further, file], cwd=suite, env=environment, check=False)


def outcome(case):
    for name in ("failure", "error", "skipped"):
        found = case.find(name)
        if found is not None:
            words = (found.get("message") or found.text or "").strip().splitlines()
            return name, words[0] if words else ""
    return "pass", ""


def table(reports):
    """The lines of the table: a row a test that does not pass, and the sums a file."""
    counts, rows = {}, []
    trees = [ElementTree.parse(report) for report in sorted(reports.glob("*.xml"))]
    for case in [case for tree in trees for case in tree.iter("testcase")]:
        file = case.get("classname", "").split(".")[-1]
        test = f"{file}::{case.get('name')}"
        result, words = outcome(case)
        reason = next((why for pattern, why in REASONS if re.search(pattern, test)), None)
        if result in ("failure", "error"):
            result = "argued" if reason else "fail"
            rows.append(f"| {test} | {result} | {reason or words.replace('|', '/')[:160]} |")
        counts.setdefault(file, Counter())[result] += 1
    names = ("pass", "fail", "argued", "skipped")
    lines = [f"| file | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    total = Counter()
    for file, count in sorted(counts.items()):
        total.update(count)
        lines.append(f"| {file} | {' | '.join(str(count[name]) for name in names)} |")
    lines.append(f"| all | {' | '.join(str(total[name]) for name in names)} |")
    lines += ["", "| test | outcome | reason |", "|---|---|---|", *rows]
    return [*lines, *(f"| {file} | not run | {reason} |" for file, reason in NOT_RUN.items())]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("nfl", "llama_cpp", "material"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--venv", type=Path)
    parser.add_argument("--keep", type=Path)
    arguments, rest = parser.parse_known_args()
    arguments.pytest = [argument for argument in rest if argument != "--"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        homes = work / "homes"
        homes.mkdir()
        python, suite = prepare(arguments, work)
        models(arguments, python, homes)
        reports = work / "reports"
        reports.mkdir()
        run(arguments, python, suite, homes, reports)
        lines = "\n".join(table(reports)) + "\n"
    print(lines)
    if arguments.keep:
        arguments.keep.write_text(lines)


if __name__ == "__main__":
    main()
