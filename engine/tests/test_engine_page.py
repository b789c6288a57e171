"""The Python examples of docs/engine.md, run one after another as they are printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.process
def test_python_examples_run(tweets: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/engine.md").read_text(encoding="utf-8")
    # One core: the tests run side by side, and threads that wait for a busy core slow each other down.
    one_core = (
        "import os\nif hasattr(os, 'sched_setaffinity'):\n    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    )
    code = one_core + "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    pl.read_parquet(tweets).head(60).write_csv(tmp_path / "moods.csv")
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    output = process.stdout
    assert "StageChanged(stage='done')" in output and "Finished(metrics=" in output
    assert re.search(r"^step 3: accuracy 0\.\d+$", output, re.MULTILINE) and "baseline: 0." in output
    assert "lora.r lora.r: must be greater than or equal to 1" in output and "training.learning_rate" in output
    assert "interrupted" in output and "resumed from step 1" in output
    assert re.search(r"^prediction: (negative|neutral|positive)$", output, re.MULTILINE)
