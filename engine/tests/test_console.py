"""Training in the terminal: what is shown, and what Ctrl-C does."""

import os
import signal
import subprocess
import sys

import pytest

from engine.errors import RunInterruptedError
from engine.tests.conftest import small
from engine.training.console import train_in_terminal
from engine.training.micro_batches import MicroBatches


@pytest.mark.slow
def test_ctrl_c_saves_after_the_step_and_the_same_command_resumes(tweets, tmp_path, monkeypatch, capsys):
    accumulate = MicroBatches.accumulate_gradients

    def press_ctrl_c_in_third_step(self, rows, step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return accumulate(self, rows, step)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(MicroBatches, "accumulate_gradients", press_ctrl_c_in_third_step)
    with pytest.raises(RunInterruptedError, match="stopped at step 3 of 8"):
        train_in_terminal(small(), data_file=tweets, results=tmp_path)
    assert (tmp_path / "artifacts/checkpoints/checkpoint-3").is_dir()
    assert signal.getsignal(signal.SIGINT) is handler

    capsys.readouterr()
    train_in_terminal(small(), data_file=tweets, results=tmp_path)
    shown = capsys.readouterr().err
    assert "8 steps, starting from step 3." in shown and "Checkpoint at step 8." in shown
    assert "8/8" in shown and "Finished: evaluation accuracy 0." in shown


@pytest.mark.process
def test_command_line_imports_without_django():
    code = "import sys, engine.__main__; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
