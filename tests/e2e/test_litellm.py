"""litellm (API 19), which pins an older openai: litellm_client.py runs in a venv of its own and prints a line a case."""
import os
import subprocess

import pytest

PYTHON = os.environ.get("QUERN_LITELLM", "build/venv-litellm/bin/python")
CASES = [f"{case} {dialect}" for case in ("plain", "tools", "streamed tools", "structured", "errors", "hang up") for dialect in ("chat", "anthropic", "ollama")]
CASES += ["responses", "thoughts", "long prompts"]


@pytest.fixture(scope="module")
def lines(server, slow):
    p = subprocess.run([PYTHON, "tests/e2e/litellm_client.py", server.url, slow.url], capture_output=True, text=True, timeout=120,
                       env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"})
    assert p.returncode == 0, p.stderr[-2000:]
    return p.stdout.splitlines()


@pytest.mark.parametrize("case", CASES)
def test_case(lines, case):
    assert f"ok {case}" in lines, "\n".join(lines)
