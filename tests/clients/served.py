"""Runs a command beside `nfl serve`, which has the tiny model as `stories`, and as `chatty` with a chat template.

    python3 tests/clients/served.py target/release/nfl ../shared/material/derived/stories260K-llama-F32.gguf COMMAND [WORD…]

The command finds the server's address in `URL`; its status is this program's.
"""

import os
import subprocess
import sys

from serving import Served, create_chatty

if len(sys.argv) < 4:
    sys.exit(f"usage: {sys.argv[0]} NFL STORIES.gguf COMMAND [WORD…]")
program, file, *command = sys.argv[1:]
with Served(program, file) as served:
    create_chatty(served.url)
    status = subprocess.run(command, env={**os.environ, "URL": served.url}).returncode
sys.exit(status)
