"""The pages: a file is previewed before it is stored, and every error is shown next to its field."""

import gzip
import re

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from datasets_app import services
from datasets_app.models import Dataset, DataTask
from testing.removals import pass_time
from work.models import Status


@pytest.fixture
def browser(client, member):
    client.force_login(member)
    return client


def send(browser, content, filename="My moods.csv"):
    return browser.post("/datasets/new/", {"file": SimpleUploadedFile(filename, content)})


FORM = {"encoding": "utf-8", "delimiter": ",", "note": ""}
FORM |= {"column_0": "comment", "role_0": "text", "column_1": "mood", "role_1": "label"}


def test_empty_list_says_what_to_do(browser):
    assert "There are no datasets yet" in browser.get("/datasets/").content.decode()


@pytest.mark.medium
def test_file_goes_through_preview_to_a_stored_version(browser, good_csv, settings):
    address = send(browser, good_csv).url
    page = browser.get(address).content.decode()
    assert "400 rows were read as csv" in page and "Save dataset" in page and 'value="my-moods"' in page
    assert page.count("<tr>") == 21
    assert not Dataset.objects.exists()
    answer = browser.post(address, {**FORM, "name": "moods"})
    assert answer.url == "/datasets/moods/"
    assert "Ready to train" in browser.get(answer.url).content.decode()
    assert not list((settings.FILE_UPLOAD_TEMP_DIR / "pending").iterdir())
    assert browser.get(address).status_code == 404


def test_changed_guess_is_shown_before_anything_is_stored(browser):
    address = send(browser, "comment,mood\n這家餐廳,好\n那家旅館,壞\n".encode("cp950")).url
    again = {**FORM, "encoding": "latin-1", "name": "x", "again": "1"}
    fragment = browser.post(address, again, headers={"HX-Request": "true"})
    assert fragment.status_code == 200 and "<html" not in fragment.content.decode()
    assert "這家餐廳" not in fragment.content.decode()
    assert "這家餐廳" in browser.post(address, {**again, "encoding": "cp950"}).content.decode()
    assert not Dataset.objects.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "../up"}, "A name cannot contain “/”."),
        ({"kind": "scores"}, "No row has both"),
        ({"name": ""}, "required"),
    ],
)
def test_error_in_the_preview_is_shown_and_nothing_is_stored(browser, good_csv, change, says):
    address = send(browser, good_csv).url
    answer = browser.post(address, {**FORM, "name": "moods", **change})
    assert answer.status_code == 400 and says in answer.content.decode()
    assert not Dataset.objects.exists()


@pytest.mark.parametrize("content", [b"", b"\x89PNG" + bytes(500), b"text,label\n"])
def test_unreadable_file_is_an_error_of_the_field_and_deleted(browser, content, settings):
    answer = send(browser, content)
    assert answer.status_code == 400 and "Nothing was stored" in answer.content.decode()
    assert not list((settings.FILE_UPLOAD_TEMP_DIR / "pending").iterdir())


def test_file_over_the_limit_is_413(browser, settings):
    settings.UPLOAD_LIMIT = 1000
    assert send(browser, b"text,label\n" * 200).status_code == 413
    assert send(browser, b"text,label\n" * 200_000).status_code == 413


def test_upload_needs_the_form_token(member, good_csv):
    from django.test import Client

    strict = Client(enforce_csrf_checks=True)
    strict.force_login(member)
    assert send(strict, good_csv).status_code == 403


def test_pending_upload_is_404_to_everyone_else(browser, stranger, good_csv):
    address = send(browser, good_csv).url
    browser.force_login(stranger)
    assert browser.get(address).status_code == 404
    assert browser.get("/datasets/new/" + "..%2f" * 14 + "/").status_code == 404


def test_viewer_cannot_upload(client, viewer):
    client.force_login(viewer)
    assert client.get("/datasets/new/").status_code == 403


def test_pages_of_a_dataset_are_404_to_a_stranger(client, stored, stranger):
    client.force_login(stranger)
    for address in ("/datasets/moods/", "/datasets/moods/rows/"):
        assert client.get(address).status_code == 404
    assert client.post("/datasets/moods/delete/").status_code == 404
    assert Dataset.objects.exists()


@pytest.mark.medium
def test_report_shows_findings_with_rows_and_leads_to_training(browser, member, file):
    from datasets_app.services import create_version

    content = (
        "text,label\n"
        + "".join(f"a text about thing {i},{'ab'[i % 2]}\n" for i in range(20))
        + "<script>x</script>,c\n"
    )
    create_version(user=member, name="odd", file=file(content), filename="a.csv")
    page = browser.get("/datasets/odd/").content.decode()
    assert "Not ready" in page and "/train/?dataset=odd%401" in page
    page += browser.get("/datasets/odd/?tab=findings").content.decode()
    assert page.count("View the findings") == 1 and "Rare labels" in page and ">1 row</td>" in page
    assert "<script>x" not in page
    assert "1 error" in re.sub(r"\s+", " ", browser.get("/datasets/").content.decode())


def test_rows_are_searched_and_filtered(browser, stored):
    page = browser.get("/datasets/moods/rows/?label=good&q=NUMBER 12 ").content.decode()
    assert "1 row found" in page and "number 12 to town" in page
    assert browser.get("/datasets/moods/rows/?page=8").status_code == 200


def test_owner_deletes_only_a_dataset_that_no_run_uses(browser, stored, member):
    run = stored.experiments.create(name="my-run", owner=member, dataset_name="moods@1", base_model="m")
    assert "my-run" in browser.post("/datasets/moods/delete/", follow=True).content.decode()
    run.delete()
    assert browser.post("/datasets/moods/delete/").url == "/datasets/"
    pass_time()
    assert not Dataset.objects.exists()


def test_rows_are_filtered_by_split(client, member, stored):
    client.force_login(member)
    page = client.get("/datasets/moods/rows/?split=eval").content.decode()
    assert f"{stored.splits['eval']} rows found" in page and 36 < stored.splits["eval"] < 44
    assert client.get("/datasets/moods/rows/?split=nothing").status_code == 200


@pytest.mark.medium
def test_broken_lines_are_downloaded(client, member, file):
    from datasets_app.services import create_version

    content = "text,label\none,a\nonly one field\nx,y,z\nthree,b\n"
    create_version(user=member, name="holes", file=file(content), filename="a.csv")
    client.force_login(member)
    assert "/datasets/holes/broken/?version=1" in client.get("/datasets/holes/?tab=versions").content.decode()
    answer = client.get("/datasets/holes/broken/?version=1")
    assert answer.content.decode() == "2\tonly one field\n3\tx,y,z\n"
    assert "attachment" in answer["Content-Disposition"]


def test_version_without_broken_lines_has_none_to_download(client, member, stored):
    client.force_login(member)
    assert client.get("/datasets/moods/broken/").status_code == 404


# --- the preview corrects every guess --------------------------------------------------------------------------------


def rows_of(*pairs):
    return ("text,label,fold\n" + "".join(f"{text},{label},{fold}\n" for text, label, fold in pairs)).encode()


@pytest.mark.medium
def test_file_with_a_header_that_does_not_fit_leads_to_the_settings(browser):
    content = b"a,b,c,d,e\n" + b"".join(b"a text about %d,%s\n" % (i, b"xy"[i % 2 :][:1]) for i in range(9))
    address = send(browser, content).url
    page = browser.get(address).content.decode()
    assert "The header has 5 names" in page and "a text about 1,y" in page and "Save dataset" not in page
    answer = browser.post(address, {"name": "rows", "header": "no", "skip_lines": "1"})
    assert answer.url == "/datasets/rows/" and Dataset.objects.get().latest.rows == 9


@pytest.mark.medium
def test_values_of_the_split_column_are_explained_on_the_page(browser):
    address = send(browser, rows_of(*((f"a long text {i}", "ab"[i % 2], "PQ"[i % 2]) for i in range(12)))).url
    roles = {"column_0": "text", "role_0": "text", "column_1": "label", "role_1": "label"}
    roles |= {"column_2": "fold", "role_2": "split", "name": "folds"}
    page = browser.post(address, {**roles, "again": "1"}).content.decode()
    assert 'name="value_0" value="p"' in page and 'name="split_1"' in page
    meanings = {"value_0": "p", "split_0": "train", "value_1": "q", "split_1": "eval"}
    assert browser.post(address, {**roles, **meanings}).url == "/datasets/folds/"
    assert Dataset.objects.get().latest.splits == {"eval": 6, "train": 6}


def test_label_names_without_a_header_are_read_as_rows(browser):
    content = b"".join(b"good\ta long enough text %d\nbad\tanother text of some length %d\n" % (i, i) for i in range(8))
    page = browser.get(send(browser, content, "a.tsv").url).content.decode()
    assert "columns are called by their number" in page and "column 2" in page and "good · 8" in page


@pytest.mark.medium
def test_pressing_the_button_twice_stores_once(browser, good_csv):
    address = send(browser, good_csv).url
    form = {**FORM, "name": "moods"}
    assert browser.post(address, form).url == browser.post(address, form).url == "/datasets/moods/"
    assert Dataset.objects.get().versions.count() == 1


@pytest.mark.slow
def test_same_rows_are_no_new_version(browser, good_csv):
    for _ in range(2):
        assert browser.post(send(browser, good_csv).url, {**FORM, "name": "moods"}).url == "/datasets/moods/"
    assert Dataset.objects.get().versions.count() == 1


@pytest.mark.medium
def test_existing_name_is_said_beside_the_form_and_its_columns_are_taken(browser, file, member):
    from datasets_app.services import create_version

    rows = [f"{'xy'[i % 2]},some title {i},a long enough text {i}" for i in range(8)]
    content = "label,title,body\n" + "\n".join(rows)
    create_version(user=member, name="visits", file=file(content), filename="a.csv", text_columns=["title"])
    sent = SimpleUploadedFile("b.csv", (content + "\nz,one more,a text").encode())
    page = browser.post("/datasets/new/?dataset=visits", {"file": sent}, follow=True).content.decode()
    assert "visits exists. This becomes its version 2" in page and "New labels: z" in " ".join(page.split())
    title, body = page.index('name="role_1"'), page.index('name="role_2"')
    assert '<option value="text" selected>' in page[title:body] and 'value="text" selected' not in page[body:]


@pytest.mark.medium
def test_several_files_are_splits(browser):
    files = [
        SimpleUploadedFile("train.csv", b"text,label\n" + b"one,a\ntwo,b\n" * 9),
        SimpleUploadedFile("valid.csv", b"text,label\nthree,a\n"),
    ]
    address = browser.post("/datasets/new/", {"file": files}).url
    assert "Each file is a split: train.csv (train), valid.csv (eval)." in browser.get(address).content.decode()
    browser.post(address, {"name": "several"})
    assert Dataset.objects.get().latest.splits == {"train": 18, "eval": 1}


def test_failure_in_the_queue_leads_back_to_the_preview(browser, member, run_worker, settings):
    from datasets_app.models import DataTask
    from datasets_app.versions import upload_storage

    content = b"text,label\n" + b"one,a\ntwo,b\n" * 9
    address = send(browser, content).url
    token = address.rstrip("/").rpartition("/")[2]
    pending = upload_storage.pending_for(member, token)
    task = upload_storage.submit_upload(user=member, name="later", pending=pending, label_columns=["nowhere"])
    run_worker()
    task = DataTask.objects.get(pk=task.pk)
    assert task.status == "FAILURE"
    page = browser.get(f"/datasets/tasks/{task.pk}/").content.decode()
    assert f"{address}?task={task.pk}" in page
    assert 'value="later"' in browser.get(f"{address}?task={task.pk}").content.decode()


@pytest.mark.medium
def test_labels_that_look_alike_are_merged_in_the_preview(browser):
    labels = ["Good", "Good", "good.", "bad"]
    content = ("text,label\n" + "".join(f"a long enough text {i},{labels[i % 4]}\n" for i in range(16))).encode()
    address = send(browser, content).url
    assert "Good = good." in browser.get(address).content.decode()
    merged = {"name": "merged", "merge_labels": "on"}
    page = browser.post(address, {**merged, "again": "1"}).content.decode()
    assert "only looked like another" in page and "Good · 12" in page
    browser.post(address, merged)
    assert Dataset.objects.get().latest.labels == {"Good": 12, "bad": 4}


@pytest.mark.medium
def test_page_of_several_labels_offers_training_but_no_search_for_wrong_labels(browser):
    rows = "".join(f"a long enough text {i},{i % 2},{int(i % 3 == 0)}\n" for i in range(12))
    browser.post(send(browser, f"text,angry,glad\n{rows}".encode()).url, {"name": "feelings"})
    page = browser.get("/datasets/feelings/").content.decode()
    assert "/train/?dataset=feelings" in page and "/datasets/feelings/noise/" not in page


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("客服工單 2026（第二版）.csv", "客服工單-2026-第二版"),
        ("Résumé.CSV.gz", "résumé"),
        ("🎉.csv", ""),
        ("a..b.csv", "a-b"),
    ],
)
def test_name_is_prefilled_by_that_of_the_file_in_any_script(browser, good_csv, filename, name):
    content = gzip.compress(good_csv) if filename.endswith(".gz") else good_csv
    page = browser.get(send(browser, content, filename).url)
    assert page.context["form"]["name"].value() == name


def test_lines_that_could_not_be_read_are_downloaded_under_a_name_in_any_script(browser, member, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "a text here,good\nanother one,bad\n" * 20 + "too,many,cells\n")
    services.create_version(user=member, name="客服", file=path, filename="a.csv")
    answer = browser.get("/datasets/%E5%AE%A2%E6%9C%8D/broken/")
    name = "%E5%AE%A2%E6%9C%8D-1-broken-lines.txt"
    assert answer.headers["Content-Disposition"] == f"attachment; filename*=utf-8''{name}"


def test_who_waits_for_a_task_is_taken_to_its_result(browser, member, stored):
    result = {"name": "moods", "version": 1}
    task = DataTask.objects.create(owner=member, kind="store", name="moods", status=Status.SUCCESS, result=result)
    page = browser.get(f"/datasets/tasks/{task.pk}/").content.decode()
    assert "Reading a file: moods</h1>" in page and "Open the result" in page
    poll = browser.get(f"/datasets/tasks/{task.pk}/", headers={"HX-Request": "true"})
    assert poll["HX-Redirect"] == "/datasets/moods/?version=1"


def test_list_shows_how_far_tasks_are_and_loads_itself_again_when_one_has_ended(browser, member, stored, stranger):
    first, second = (DataTask.objects.create(owner=member, kind="noise", name=name) for name in ("moods", "more"))
    page = browser.get("/datasets/").content.decode()
    assert 'hx-trigger="datasets-changed from:body"' in page
    address = re.search(r'hx-get="(/datasets/tasks/states/[^"]+)"', page)[1].replace("&amp;", "&")  # type: ignore[index]
    answer = browser.get(address)
    assert "HX-Trigger" not in answer and f"task={first.pk}" in answer.content.decode()
    DataTask.objects.filter(pk=first.pk).update(status=Status.SUCCESS, result={"name": "moods", "version": 1})
    answer = browser.get(address)
    content = answer.content.decode()
    assert answer["HX-Trigger"] == '{"datasets-changed": {}}' and "/datasets/moods/noise/?version=1" in content
    assert f"task={first.pk}" not in content and f"task={second.pk}" in content  # of the next poll
    browser.force_login(stranger)
    assert "moods" not in browser.get(address).content.decode()
