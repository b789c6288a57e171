"""An estimate adds up measured times, for every setting that does not change the measurement."""

import tempfile
from dataclasses import replace

import pytest

from engine import warm_up
from engine.config import RunConfig
from engine.training.estimate import RunMeasurement, estimate_run, measure_run, settings_with_influence, spread

MEASURED = RunMeasurement(
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
    estimate = estimate_run(config(**training), MEASURED)
    assert (estimate.steps, estimate.memory_mb) == (steps, 900.0)
    assert estimate.seconds == pytest.approx(seconds)


def test_what_the_base_model_has_computed_for_earlier_runs_takes_no_time(tmp_path) -> None:
    measured = replace(MEASURED, base_s={"answers-a.json": 30.0, "base-figures-b.json": 4.0})
    without = estimate_run(config(max_steps=3), MEASURED).seconds
    assert estimate_run(config(max_steps=3), measured, tmp_path).seconds == without + 34
    (tmp_path / "answers-a.json").write_text("{}")
    assert estimate_run(config(max_steps=3), measured, tmp_path).seconds == without + 4
    assert estimate_run(config(max_steps=3), measured).seconds == without + 34


def test_only_settings_with_an_influence_need_their_own_measurement() -> None:
    same = [config(num_train_epochs=n, learning_rate=n / 100, seed=n, eval_strategy="no") for n in (1, 2)]
    other = [config(per_device_train_batch_size=4), RunConfig.parse({"data": {"max_length": 40}})]
    assert settings_with_influence(same[0]) == settings_with_influence(same[1])
    assert all(settings_with_influence(one) != settings_with_influence(same[0]) for one in other)


@pytest.mark.slow
def test_measurement_of_a_real_run_leaves_no_files_and_reports_its_progress(tweets, tmp_path, monkeypatch) -> None:
    warm_up()  # torch makes a folder for its compiler in the temporary folder when it is imported
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    run_config = RunConfig.parse(
        {
            "lora": {"layers_to_transform": [5]},
            "data": {"train_samples": 64, "eval_samples": 32, "max_length": 24},
            "training": {"per_device_train_batch_size": 16},
            "system": {"num_threads": 1, "baseline": False},
        }
    )
    reports: list[tuple[int, int]] = []
    measured = measure_run(
        run_config, data_file=tweets, report_progress=lambda done, total: reports.append((done, total))
    )
    assert measured.steps_per_epoch == 4 and measured.micro_batch == 16
    assert min(measured.step_s, measured.evaluation_s, measured.prepare_s, measured.save_s, measured.end_s) > 0
    assert len(reports) >= 2 and reports == sorted(reports) and all(done <= total for done, total in reports)
    assert replace(measured, **measured.to_json()) == measured
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 9, 40])
def test_lengths_are_tried_from_the_ends_inwards_and_each_once(count: int) -> None:
    order = list(spread(list(range(count))))
    assert sorted(order) == list(range(count)) and order[:2] == [count - 1, 0][:count]
