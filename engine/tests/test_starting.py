"""How a run starts on the command line: rows are read in another process while this one imports its libraries."""

import os
import subprocess
import sys
from contextlib import closing

import psutil
import pytest

from engine.data.data_files import find_data_file
from engine.data.rows import load_rows
from engine.data.rows_ahead import RowsAhead
from engine.errors import DataUnreadableError
from engine.tests.conftest import small

CONFIG = small()
IMPORTED = "import sys; print(*{'torch', 'transformers', 'peft', 'polars', 'numba', 'sklearn'} & set(sys.modules))"
FIRST_STEP = """
import gc, sys
from contextlib import closing
from pathlib import Path

from engine import RunConfig, StepDone, import_libraries, train
from engine.data.rows_ahead import RowsAhead

tweets, results, config = sys.argv[1:]
config = RunConfig.model_validate_json(config)
with closing(RowsAhead(tweets, config.data, config.task, 42, Path(results))) as rows:
    import_libraries()
    next(event for event in train(config, data_file=rows, results=Path(results)) if isinstance(event, StepDone))
print(gc.isenabled(), *{"polars", "pandas", "sklearn"} & set(sys.modules))
"""


@pytest.mark.process
def test_command_line_imports_no_heavy_library_before_it_reads_the_rows():
    code = f"import engine.__main__; {IMPORTED}"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []


@pytest.mark.process
def test_first_step_needs_no_library_that_reads_data_or_computes_the_baseline(tweets, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", FIRST_STEP, str(tweets), str(tmp_path)]
    command.append(CONFIG.model_dump_json())
    assert subprocess.check_output(command, text=True).split() == ["True"]


@pytest.mark.process
@pytest.mark.parametrize("kind", ["file", "sample"])
def test_other_process_reads_the_rows_that_this_one_would_read(tweets, tmp_path, kind):
    name = str(tweets) if kind == "file" else "reviews-zh"
    with closing(RowsAhead(name, CONFIG.data, CONFIG.task, 7, tmp_path)) as ahead:
        rows = ahead()
    here = load_rows(find_data_file(name, tmp_path), CONFIG.data, 7)
    assert rows.digest() == here.digest()
    assert (rows.skipped_by_reason, rows.rare) == (here.skipped_by_reason, here.rare)


@pytest.mark.process
def test_error_of_the_other_process_is_raised_here(tmp_path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not Parquet")
    with (
        closing(RowsAhead(str(broken), CONFIG.data, CONFIG.task, 7, tmp_path)) as ahead,
        pytest.raises(DataUnreadableError) as caught,
    ):
        ahead()
    assert caught.value.field == "data.dataset_name"


@pytest.mark.process
def test_rows_are_read_here_when_the_other_process_is_killed(tweets, tmp_path):
    with closing(RowsAhead(str(tweets), CONFIG.data, CONFIG.task, 7, tmp_path)) as ahead:
        assert ahead.process
        ahead.process.kill()
        assert ahead().digest() == load_rows(tweets, CONFIG.data, 7).digest()


@pytest.mark.process
def test_closing_ends_the_other_process_before_it_is_done(tweets, tmp_path):
    fifo = tmp_path / "endless.csv"
    os.mkfifo(fifo)  # nobody writes to it
    ahead = RowsAhead(str(fifo), CONFIG.data, CONFIG.task, 7, tmp_path)
    assert ahead.process
    assert psutil.pid_exists(ahead.process.pid)
    ahead.close()
    assert not psutil.pid_exists(ahead.process.pid)


@pytest.mark.process
def test_unknown_dataset_is_refused_before_anything_is_imported_or_written(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("data: {dataset_name: nowhere}\n")
    code = f"from engine.__main__ import main; print(main(sys.argv[1:]))\n{IMPORTED}"
    command = [sys.executable, "-c", f"import sys; {code}", str(config), "--results", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
    assert "no sample dataset named nowhere" in done.stderr
    assert not (tmp_path / "runs").exists()
