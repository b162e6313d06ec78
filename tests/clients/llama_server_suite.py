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

# A pattern of FILE::TEST, and why such a test cannot pass.
REASONS = [
    (r"result_with_image|vision_format_accepted", "the same words, but 400: the request is wrong, not the server"),
    (r"test_vision_api|_vision_", "no model that sees, in the material or in nfl"),
    (r"test_router", "llama-server's own management of models; nfl has stored names and Ollama's dialect"),
    (r"test_mcp_servers|test_tools_builtin|test_proxy", "tools of llama-server's web page"),
    (r"test_compat_gcp", "Google's Vertex AI sets how a server is called; a proxy's work"),
    (r"test_sleep", "keep_alive unloads models; there is no server-wide sleep"),
    (r"test_slot_save", "states are saved by the worker of its own accord, not into files of clients"),
    (r"test_lora", "needs an adapter of the suite's own, from the network; adapters belong to models"),
    (r"test_load_split_model|test_spec", "needs a model from the network"),
    (r"multiple_addresses", "one address"),
    (r"test_no_ui", "the page cannot be switched off"),
    (r"test_server_slots|test_metrics_disabled", "/slots and /metrics cannot be switched off"),
    (r"test_server_models|model_aliases_and_tags", "names choose models: the shim stores several for one"),
    (r"test_metrics_(prometheus|prompt_proc|predicted)", "wants a header in capitals; names of headers have no case"),
    (r"ctx_shift_enabled", "contexts shift in Ollama's dialect only"),
    (r"short_prompt\[-1", "one token more: the last one of a full context need not be in it"),
    (r"post_sampling|post_backend", "only the model's own probabilities are told"),
    (r"test_completion_unified|kv_keep_only_active", "each conversation has its own cache"),
    (r"test_cancel_request", "a model is loaded when it is asked for: the client leaves before there is a slot"),
    (r"anthropic_tool_(use|streaming)|streaming_content_block", "tools and a template without: refused, not passed over"),
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
writer = gguf.GGUFWriter({str(homes / "infill.gguf")!r}, "llama")
for field in reader.fields.values():
    if field.name.startswith("GGUF.") or field.name == "general.architecture":
        continue
    inner = field.types[-1] if len(field.types) > 1 else None
    writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
# Tokens for letters that no English text has.
for token, number in (("prefix", 509), ("suffix", 510), ("middle", 511)):
    writer.add_uint32(f"tokenizer.ggml.{{token}}_token_id", number)
for tensor in reader.tensors:
    writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""
    subprocess.run([python, "-c", script], check=True)


def run(arguments, python, suite, homes, report):
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
    command = [python, "-m", "pytest", "-q", "--tb=short", "--timeout=60", f"--junitxml={report}"]
    # As the suite's own script does: slow tests fetch models of gigabytes.
    command += ["-m", "not slow"]
    chosen = arguments.pytest or ["unit"]
    subprocess.run([*command, *chosen], cwd=suite, env=environment, check=False)


def outcome(case):
    for name in ("failure", "error", "skipped"):
        found = case.find(name)
        if found is not None:
            words = (found.get("message") or found.text or "").strip().splitlines()
            return name, words[0] if words else ""
    return "pass", ""


def table(report):
    """The lines of the table: a row a test that does not pass, and the sums a file."""
    counts, rows = {}, []
    for case in ElementTree.parse(report).iter("testcase"):
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
    return [*lines, "", "| test | outcome | reason |", "|---|---|---|", *rows]


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
        report = work / "report.xml"
        run(arguments, python, suite, homes, report)
        lines = "\n".join(table(report)) + "\n"
    print(lines)
    if arguments.keep:
        arguments.keep.write_text(lines)


if __name__ == "__main__":
    main()
