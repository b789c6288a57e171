"""The pages of training, as a browser without JavaScript sees them."""

from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client
from django.utils import translation

from accounts import sharing
from accounts.permissions import grant_access
from datasets_app.models import Version
from datasets_app.versions.changes import make_version
from engine.config import RunConfig
from engine.contradictions import OF_LANGUAGE_MODELS, OF_PREFERENCES
from engine.names import explain_refusal
from testing.datasets import store_dataset
from training import services
from training.field_words import FIELD_WORDS
from training.forms import RunForm, config_fields, form_texts
from training.models import Point, Status, Task
from web.errors import InvalidError
from web.sentences import translate

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser(client: Client, member: Any, tweets_csv: Any) -> Client:
    store_dataset(member, "tweets", tweets_csv)
    client.force_login(member)
    return client


def form_of(page: Any) -> dict[str, str]:
    """What a browser would post: every field with the value that it shows."""
    form: RunForm = page.context["form"]
    return {field.html_name: field.value() or "" for field in form} | {"do": "start"}


@pytest.mark.medium
def test_form_has_every_field_of_the_configuration(browser: Client) -> None:
    page = browser.get("/train/")
    assert {field.path for field in config_fields()} - OF_PREFERENCES - OF_LANGUAGE_MODELS <= set(
        page.context["form"].fields
    )
    assert b"training.learning_rate" in page.content and b"data.validation_rules" in page.content


@pytest.mark.medium
def test_form_as_shown_is_a_run_of_the_same_configuration(browser: Client) -> None:
    shown = form_of(browser.get("/train/?preset=quick&dataset=tweets@1"))
    answer = browser.post("/train/", shown)
    task = Task.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, f"/runs/{task.pk}/")
    assert task.experiment.config["data"]["train_samples"] == 2000
    assert task.experiment.config["lora"]["r"] == 8


@pytest.mark.medium
@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("lora.r", "0", "greater than or equal to 1"),
        ("training.learning_rate", "-1", "greater than 0"),
        ("training.learning_rate", "fast", "number"),
        ("data.validation_rules", "{typo: error}", "finding codes"),
        ("lora.target_modules", "all linear", "list of module names"),
        ("model.name", "nobody/has-this", "list of base models"),
        ("data.dataset_name", "nowhere", "no dataset"),
        ("experiment_name", "../up", "letters"),
    ],
)
def test_wrong_value_is_told_beside_its_field_and_nothing_is_queued(
    browser: Client, field: str, value: str, expected: str
) -> None:
    page = browser.post("/train/", form_of(browser.get("/train/?dataset=tweets@1")) | {field: value})
    assert expected in " ".join(page.context["form"].errors[field])
    assert f'id="id_{field}_error"' in page.content.decode()
    assert page.context["form"][field].value() == value
    assert not Task.objects.exists()


@pytest.mark.medium
def test_name_is_refused_in_the_language_of_the_reader(browser: Client) -> None:
    form = form_of(browser.get("/train/?dataset=tweets@1")) | {"experiment_name": "客服 甲"}
    page = browser.post("/train/", form, headers={"Accept-Language": "zh-Hant"})
    with translation.override("zh-hant"):
        assert page.context["form"].errors["experiment_name"] == [translate(explain_refusal("客服 甲"))]


@pytest.mark.medium
def test_two_submits_of_one_form_are_one_run(browser: Client) -> None:
    shown = form_of(browser.get("/train/?dataset=tweets@1"))
    first, second = browser.post("/train/", shown), browser.post("/train/", shown)
    assert first["Location"] == second["Location"] and Task.objects.count() == 1


@pytest.mark.medium
def test_yaml_fills_the_form_and_a_broken_one_says_the_line(browser: Client) -> None:
    filled = browser.post("/train/", {"do": "read", "yaml": "lora: {r: 4}\ntraining: {warmup_ratio: 0.2}"})
    assert filled.context["form"]["lora.r"].value() == "4"
    assert filled.context["form"]["training.warmup_ratio"].value() == "0.2"
    broken = browser.post("/train/", {"do": "read", "yaml": "lora: {r: 4\n"})
    assert broken.status_code == 400 and "line 2" in broken.content.decode()
    unknown = browser.post("/train/", {"do": "read", "yaml": "lora: {rank: 4}"})
    assert "lora.rank is not a field" in unknown.content.decode()


@pytest.mark.medium
def test_copies_follow_the_form(browser: Client) -> None:
    shown = form_of(browser.get("/train/?dataset=tweets@1"))
    page = browser.post("/train/", shown | {"do": "show", "training.seed": "7"})
    code = {copy["id"]: copy["code"] for copy in page.context["copies"]}
    assert RunConfig.from_yaml(code["copy-yaml"]).training.seed == 7
    assert all('"seed": 7' in code[name] or "'seed': 7" in code[name] for name in ("copy-curl", "copy-python"))
    assert not Task.objects.exists()


@pytest.mark.medium
def test_like_starts_from_an_earlier_run(browser: Client) -> None:
    browser.post("/train/", form_of(browser.get("/train/?dataset=tweets@1")) | {"lora.r": "3"})
    name = Task.objects.get().experiment.name
    form = browser.get(f"/train/?like={name}").context["form"]
    assert form["lora.r"].value() == "3" and form["experiment_name"].value() != name


def test_viewer_is_told_that_the_role_does_not_allow_it(client: Client, viewer: Any) -> None:
    client.force_login(viewer)
    assert client.get("/train/").status_code == 403


def test_every_configuration_survives_the_form() -> None:
    config = RunConfig.parse(
        {
            "lora": {"target_modules": ["query", "value"], "use_rslora": True},
            "training": {"class_weights": {"a": 2.0}, "max_steps": 5, "learning_rate": 5e-5},
            "data": {"validation_rules": {"markup": "error"}},
        }
    )
    dump = config.model_dump(mode="json")
    form = RunForm(form_texts(dump), config=dump, datasets=[], models=[])
    assert RunConfig.parse(form.configuration()) == config


@pytest.fixture
def task(browser: Client) -> Task:
    browser.post("/train/", form_of(browser.get("/train/?dataset=tweets@1")))
    return Task.objects.get()


@pytest.mark.medium
def test_poll_answers_the_part_that_changes_and_ends_with_286(browser: Client, task: Task) -> None:
    page, poll = browser.get(f"/runs/{task.pk}/"), browser.get(f"/runs/{task.pk}/", HTTP_HX_REQUEST="true")
    assert b"<html" in page.content and b"<html" not in poll.content
    assert poll.status_code == 200 and "HX-Request" in poll["Vary"]
    Task.objects.filter(pk=task.pk).update(status=Status.CANCELLED)
    last = browser.get(f"/runs/{task.pk}/", HTTP_HX_REQUEST="true")
    assert last.status_code == 286 and b'hx-trigger="every 1s"' not in last.content and b"Resume" in last.content


@pytest.mark.medium
def test_run_once_more_is_a_new_one_where_the_first_was_given_away(
    client: Client, member: Any, stranger: Any, submit: Any
) -> None:
    like = submit().experiment
    client.force_login(member)
    first, same = (client.post("/runs/again/", {"like": like.name})["Location"] for _ in range(2))
    assert first == same and client.get(first).status_code == 200
    made = Task.objects.exclude(experiment=like).get().experiment
    sharing.set_access(user=member, obj=made, to=stranger, level="owner")
    other = client.post("/runs/again/", {"like": like.name})["Location"]
    assert other != first and client.get(other).status_code == 200


@pytest.mark.medium
def test_screen_reader_hears_a_quarter_once(browser: Client, task: Task) -> None:
    Task.objects.filter(pk=task.pk).update(status=Status.STARTED, step=30, total_steps=100)

    def poll(heard: int) -> str:
        return browser.get(f"/runs/{task.pk}/?heard={heard}", HTTP_HX_REQUEST="true").content.decode()

    assert "25% done." in poll(0)
    assert "25% done." not in poll(1)


@pytest.mark.medium
def test_run_is_compared_with_always_saying_the_commonest_label(browser: Client, task: Task) -> None:
    Task.objects.filter(pk=task.pk).update(status=Status.STARTED)
    for step, accuracy in ((10, 0.4), (20, 0.73)):
        Point.objects.create(task=task, step=step, epoch=0.1, accuracy=accuracy, macro_f1=accuracy)
    page = browser.get(f"/runs/{task.pk}/").content.decode()
    assert "40 points above the majority-class baseline, still improving." in page  # 100 rows of each


@pytest.mark.medium
def test_cancel_and_resume_by_hand(browser: Client, task: Task) -> None:
    browser.post(f"/runs/{task.pk}/cancel/")
    task.refresh_from_db()
    assert task.status == Status.CANCELLED
    browser.post(f"/runs/{task.pk}/resume/")
    task.refresh_from_db()
    assert task.status == Status.PENDING


@pytest.mark.medium
def test_reader_of_a_shared_run_sees_it_without_its_buttons(browser: Client, task: Task, viewer: Any) -> None:
    grant_access(task, to=viewer)
    browser.force_login(viewer)
    page = browser.get(f"/runs/{task.pk}/")
    assert page.status_code == 200 and b'id="cancel"' not in page.content
    assert browser.post(f"/runs/{task.pk}/cancel/").status_code == 403


@pytest.mark.medium
def test_every_setting_has_a_label_in_words_and_its_key_beside_it(browser: Client) -> None:
    page = browser.get("/train/").content.decode()
    assert {field.path for field in config_fields()} == set(FIELD_WORDS)
    assert "Batch size of evaluations</label>" in page and "training.per_device_eval_batch_size</code>" in page
    for path, words in FIELD_WORDS.items():
        assert "_" not in str(words.title) and (
            path in OF_PREFERENCES | OF_LANGUAGE_MODELS or f'for="id_{path}"' in page
        )


@pytest.mark.medium
def test_switch_that_is_off_is_sent_and_one_that_is_on_wins(browser: Client) -> None:
    page = browser.get("/train/").content.decode()
    assert 'name="system.baseline" value="false"' in page and 'role="switch"' in page
    form = RunForm(
        QueryDict("system.baseline=false&lora.use_dora=false&lora.use_dora=true"), config={}, datasets=[], models=[]
    )
    assert form.configuration() == {"lora": {"use_dora": "true"}, "system": {"baseline": "false"}}
    shown = form.as_p()
    assert 'id="id_lora.use_dora" checked' in shown and 'id="id_system.baseline" checked' not in shown


@pytest.mark.medium
def test_errors_are_counted_in_a_banner_with_links_that_has_the_focus(browser: Client) -> None:
    wrong = {"lora.r": "0", "training.learning_rate": "-1"}
    page = browser.post("/train/", form_of(browser.get("/train/?dataset=tweets@1")) | wrong).content.decode()
    banner = page.partition('id="problems"')[2].partition("</div>")[0]
    assert "2 settings need fixing. The run was not started." in banner and "autofocus" in banner
    assert '<a href="#id_lora.r">LoRA rank (r)</a>: Must be greater than or equal to 1' in banner
    assert "lora.r: " not in page


@pytest.mark.medium
def test_yaml_says_how_many_values_it_filled_in_and_an_error_has_the_focus(browser: Client) -> None:
    filled = browser.post("/train/", {"do": "read", "yaml": "lora: {r: 4, lora_alpha: 8}\ntraining: {seed: 3}"})
    assert "Filled in 3 values from the YAML." in filled.content.decode()
    wrong = browser.post("/train/", {"do": "read", "yaml": "lora: {r: 0}"}).content.decode()
    assert 'spellcheck="false" autofocus aria-invalid="true"' in wrong and "Filled in" not in wrong


def test_names_are_separated_by_commas(browser: Client) -> None:
    form = RunForm({"lora.target_modules": "query, value"}, config={}, datasets=[], models=[])
    assert form.configuration() == {"lora": {"target_modules": ["query", "value"]}}


def test_presets_say_what_they_change_and_how_long_it_takes(browser: Client) -> None:
    page = browser.get("/train/?dataset=tweets@1").content.decode()
    quick = page.partition('id="preset-quick"')[2].partition("</li>")[0]
    assert "rows at most" in quick and "rank 8" in quick and " steps" in quick
    assert "all rows" in page.partition('id="preset-best"')[2].partition("</li>")[0]


@pytest.mark.medium
def test_config_tab_shows_what_differs_from_the_run_it_was_cloned_from(browser: Client) -> None:
    browser.post("/train/", form_of(browser.get("/train/?dataset=tweets@1")))
    first = Task.objects.get().experiment
    browser.post("/train/", form_of(browser.get(f"/train/?like={first.name}")) | {"lora.r": "3"})
    second = Task.objects.exclude(experiment=first).get()
    assert second.experiment.cloned_from == first
    page = browser.get(f"/runs/{second.pk}/?tab=config").content.decode()
    table = page.partition(f"Changed from {first.name}")[2].partition("</section>")[0]
    assert table.count("<code>") == 1 and "lora.r</code></th><td>3</td>" in table
    first.delete()
    assert "Changed from the defaults" in browser.get(f"/runs/{second.pk}/?tab=config").content.decode()


@pytest.mark.medium
def test_older_version_of_a_dataset_can_be_chosen(browser: Client, member: Any) -> None:
    version = Version.objects.get()
    make_version(user=member, version=version, change={"did": "edit", "rows": {"1": None}})
    page = browser.get("/train/").content.decode()
    assert f'<option value="tweets@1">tweets@1 · {version.rows:,} rows</option>' in page
    assert f'<option value="tweets@2" selected>tweets@2 · {version.rows - 1:,} rows</option>' in page


def test_what_is_wrong_with_a_setting_is_said_in_the_language_of_the_reader() -> None:
    wrong = {"lora": {"r": 0, "use_dora": "maybe"}, "training": {"epochs": 3}, "task": "regression"}
    with translation.override("zh-hant"), pytest.raises(InvalidError) as caught:
        services.parse_config(wrong)
    messages = {problem["field"]: problem["message"] for problem in caught.value.problems}
    assert messages["lora.r"] == "lora.r: 必須大於或等於 1。目前的值：0。"
    assert messages["lora.use_dora"].startswith("lora.use_dora: 必須是 true 或 false")
    assert "可用的欄位：" in messages["training.epochs"] or "您是指" in messages["training.epochs"]


@pytest.mark.medium
def test_form_of_somebody_without_data_leads_to_add_some(client: Client, stranger: Any) -> None:
    client.force_login(stranger)
    page = client.get("/train/").content.decode()
    assert "You have no data to train on yet." in page and 'href="/datasets/new/"' in page and "0 steps" not in page
