"""A forecast adds up what was measured, for every setting that has no influence on the measurement."""

import tempfile
from dataclasses import replace

import pytest

from engine.config import RunConfig
from engine.training.estimate import Measured, forecast, influences, measure, spread

MEASURED = Measured(
    steps_per_epoch=10, step_s=1.0, warm_up_s=2.0, evaluation_s=3.0, prepare_s=2.0, save_s=0.25, end_s=7.0,
    peak_mb=900.0, micro_batch=32,
)  # fmt: skip


def config(**training: object) -> RunConfig:
    return RunConfig.parse({"training": training})


@pytest.mark.parametrize(
    ("training", "steps", "seconds"),
    [
        ({"num_train_epochs": 2}, 20, 2 + 20 + 2 + 2 * 3 + 2 * 0.25 + 7),
        ({"num_train_epochs": 2, "eval_strategy": "no"}, 20, 2 + 20 + 2 + 3 + 2 * 0.25 + 7),
        ({"max_steps": 3}, 3, 2 + 3 + 2 + 3 + 0.25 + 7),
        ({"num_train_epochs": 1, "eval_strategy": "steps", "eval_steps": 4}, 10, 2 + 10 + 2 + 3 * 3 + 3 * 0.25 + 7),
    ],
)
def test_time_is_the_sum_of_its_parts(training: dict[str, object], steps: int, seconds: float) -> None:
    found = forecast(config(**training), MEASURED)
    assert (found.steps, found.memory_mb) == (steps, 900.0)
    assert found.seconds == pytest.approx(seconds)


def test_only_what_matters_asks_for_a_measurement_of_its_own() -> None:
    same = [config(num_train_epochs=n, learning_rate=n / 100, seed=n, eval_strategy="no") for n in (1, 2)]
    other = [config(per_device_train_batch_size=4), RunConfig.parse({"data": {"max_length": 40}})]
    assert influences(same[0]) == influences(same[1])
    assert all(influences(one) != influences(same[0]) for one in other)


def test_measurement_of_a_real_run_leaves_nothing_and_is_told_of(tweets, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(scratch := tmp_path / "scratch"))
    scratch.mkdir()
    asked = RunConfig.parse(
        {
            "lora": {"layers_to_transform": [5]},
            "data": {"train_samples": 64, "eval_samples": 32, "max_length": 24},
            "training": {"per_device_train_batch_size": 16},
            "system": {"num_threads": 1, "baseline": False},
        }
    )
    heard: list[tuple[int, int]] = []
    found = measure(asked, data_file=tweets, told=lambda done, total: heard.append((done, total)))
    assert found.steps_per_epoch == 4 and found.micro_batch == 16
    assert min(found.step_s, found.evaluation_s, found.prepare_s, found.save_s, found.end_s) > 0
    assert len(heard) >= 2 and heard == sorted(heard) and all(done <= total for done, total in heard)
    assert replace(found, **found.to_json()) == found
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 9, 40])
def test_lengths_are_tried_from_the_ends_inwards_and_each_once(count: int) -> None:
    order = list(spread(list(range(count))))
    assert sorted(order) == list(range(count)) and order[:2] == [count - 1, 0][:count]
