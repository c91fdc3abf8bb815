"""J4: what random tokens under the masks write keeps to the schema, says python-jsonschema.  A slice of
`bench_masks texts 500 | tests/tools/check_texts.py`."""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/tools"))
import check_texts  # noqa: E402


def test_random_texts_are_valid():
    bench = pathlib.Path(os.environ.get("QUERN_BIN", ROOT / "build/quern")).parent / "bench/bench_masks"
    assert bench.exists(), "make bench builds it"
    run = subprocess.run([bench, "texts", "30", "7"], cwd=ROOT, capture_output=True, timeout=120, check=True)
    wrong, count = check_texts.faults(run.stdout, check_texts.schemas(check_texts.SLICE))
    assert count["schemas"] == 30 and count["texts"] >= 60
    assert not wrong
