"""Each change makes a new version that records the change; the earlier version is not modified."""

import polars as pl
import pytest
from django.utils import translation

from datasets_app import descriptions, services
from datasets_app.models import Version
from datasets_app.versions import changes, diff
from datasets_app.versions.text_marks import mark_changes
from testing.datasets import store_dataset
from web.errors import ConflictError, InvalidError

pytestmark = pytest.mark.django_db

DIRTY = [
    ("a fine <b>day</b> in the old town", "good"),
    ("write to jane.roe@example.org or call 0912-345-678", "bad"),
    ("the same thing said twice", "good"),
    ("the same thing said twice", "good"),
    ("people disagree on this one", "good"),
    ("people disagree on this one", "good"),
    ("People disagree on this one", "bad"),
    ("zero\u200bwidth spaces break words", "bad"),
    ("It doesnâ€™t work at all", "bad"),
    ("x", "bad"),
]


@pytest.fixture
def dirty(member, file):
    lines = [f"number {i} of the clean rows says {i * i},{'good' if i % 2 else 'bad'}" for i in range(40)]
    content = "\n".join(["text,label", *lines, *(f'"{text}",{label}' for text, label in DIRTY)])
    return store_dataset(member, "dirty", file(content, "dirty.csv"))


def make(member, version, **change) -> Version:
    made = changes.make_version(user=member, version=version, change=change)
    assert isinstance(made, Version)
    return made


def fixed(member, version, code) -> list[tuple[int, str, str]]:
    made = make(member, version, did="fix", code=code)
    assert made.parent == version and made.change["code"] == code
    assert not made.findings.filter(code=code).exists()
    return pl.read_parquet(made.path).select("row", "text", "label").rows()


@pytest.mark.medium
@pytest.mark.parametrize(
    ("code", "row", "text"),
    [
        ("markup", 41, "a fine day in the old town"),
        ("personal_data", 42, "write to [e-mail] or call [phone]"),
        ("control_characters", 48, "zerowidth spaces break words"),
        ("encoding", 49, "It doesn’t work at all"),
    ],
)
def test_text_is_repaired_and_keeps_its_row(member, dirty, code, row, text):
    assert [t for r, t, _ in fixed(member, dirty, code) if r == row] == [text]


@pytest.mark.medium
@pytest.mark.parametrize(
    ("code", "left_out"), [("exact_duplicate", [44, 46]), ("too_short", [50]), ("label_conflict", [47])]
)
def test_rows_are_left_out_and_the_others_keep_their_numbers(member, dirty, code, left_out):
    rows = fixed(member, dirty, code)
    assert set(range(1, 51)) - {r for r, _, _ in rows} == set(left_out)


@pytest.mark.medium
def test_fixed_version_is_not_modified(member, dirty):
    before = dirty.path.read_bytes()
    changes.make_version(user=member, version=dirty, change={"did": "fix", "code": "markup"})
    dirty.refresh_from_db()
    assert dirty.path.read_bytes() == before and dirty.findings.filter(code="markup").exists()


def test_every_finding_with_a_button_has_a_fix():
    from datasets_app import descriptions

    assert set(descriptions.FIX_LABELS) == set(changes.FIXED)


def test_row_is_edited_and_another_dropped(member, dirty):
    rows = {"41": {"text": "a fine day", "label": "bad"}, "50": None}
    made = make(member, dirty, did="edit", rows=rows)
    cells = {r: (t, x) for r, t, x in pl.read_parquet(made.path).select("row", "text", "label").rows()}
    assert cells[41] == ("a fine day", "bad") and 50 not in cells
    assert made.change == {"did": "edit", "count": 2} and "Edited 2 rows" in made.note


@pytest.mark.parametrize(
    ("rows", "error"),
    [({"999": None}, InvalidError), ({"41": {"text": " ", "label": "bad"}}, InvalidError), ({"1": {}}, ConflictError)],
)
def test_invalid_edit_is_refused_and_makes_no_version(member, dirty, rows, error):
    with pytest.raises(error):
        changes.make_version(user=member, version=dirty, change={"did": "edit", "rows": rows})
    assert Version.objects.count() == 1


@pytest.mark.medium
def test_label_is_renamed(member, dirty):
    made = make(member, dirty, did="rename", label="bad", to="poor")
    assert set(made.labels) == {"good", "poor"}


@pytest.fixture
def spelled(member, file):
    """60 rows of two labels in five spellings, and four rows that are marked as having none."""
    spellings = ["Good", "good.", "GOOD", "bad", "Bad"]
    lines = [f"a story about the number {i * i} that is told once,{spellings[i % 5]}" for i in range(60)]
    marked = [
        f"no one has labelled the story of {i * i * i},{mark}" for i, mark in enumerate(("NULL", "N/A", "-", "nan"))
    ]
    content = "\n".join(["text,label", *lines, *marked])
    return store_dataset(member, "spelled", file(content, "spelled.csv"))


@pytest.mark.medium
def test_labels_that_look_alike_are_merged_in_one_version(member, spelled):
    assert "look alike" in spelled.findings.get(code="similar_labels").message
    made = make(member, spelled, did="fix", code="similar_labels")
    assert {label: n for label, n in made.labels.items() if n > 1} == {"Good": 36, "Bad": 24}
    assert made.number == 2 and made.change["count"] == 36 and not made.findings.filter(code="similar_labels").exists()


@pytest.mark.medium
def test_rows_without_a_label_are_dropped(member, spelled):
    made = make(member, spelled, did="fix", code="no_label")
    assert made.rows == 60 and not {"NULL", "N/A", "-", "nan"} & set(made.labels)


@pytest.mark.medium
def test_several_labels_are_renamed_at_once(api, member, spelled):
    change = {"did": "rename", "labels": ["Good", "good.", "GOOD"], "to": "fine"}
    answer = api(member).post("/api/datasets/spelled/changes", change, format="json")
    assert answer.status_code == 201 and answer.json()["labels"]["fine"] == 36
    assert "“Good”, “good.”, “GOOD”" in spelled.dataset.versions.get(number=2).note
    answer = api(member).post("/api/datasets/spelled/changes", {"did": "rename", "to": "fine"}, format="json")
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] == "label"


@pytest.mark.medium
def test_report_offers_to_merge_labels_that_look_alike(client, member, spelled):
    client.force_login(member)
    page = client.get("/datasets/spelled/?tab=findings").content.decode()
    assert "labels look alike" in page and "Merge the labels that look alike" in page
    answer = client.post("/datasets/spelled/fix/", {"version": 1, "code": "similar_labels"}, follow=True)
    assert "Version 2 was made" in answer.content.decode()


@pytest.mark.medium
def test_merge_adds_only_new_rows(member, dirty, file):
    other = services.create_version(
        user=member, name="more", file=file('text,label\n"x",bad\nsomething new,good\n'), filename="a.csv"
    )
    made = make(member, dirty, did="merge", version_pk=other.pk, other=str(other))
    assert made.rows == 51 and pl.read_parquet(made.path)["row"].to_list()[-1] == 51
    assert "more@1" in made.note


@pytest.mark.medium
def test_difference_is_shown_by_row_and_label(member, dirty):
    rows = {"41": {"text": "a fine day", "label": "good"}, "42": {"label": "good"}, "50": None}
    made = make(member, dirty, did="edit", rows=rows)
    difference = diff.compare_versions(dirty, made)
    counts = {change["kind"]: change["count"] for change in difference["changes"]}
    assert counts == {"relabelled": 1, "rewritten": 1, "added": 0, "dropped": 1}
    assert difference["moves"] == [{"label": "bad", "label_new": "good", "rows": 1}]
    assert difference["unchanged"] == 47


@pytest.mark.medium
def test_difference_of_two_uploads_is_matched_by_text(member, file):
    one = services.create_version(user=member, name="n", file=file("text,label\na b c,x\nd e f,y\n"), filename="a.csv")
    two = services.create_version(
        user=member, name="n", file=file("text,label\ng h i,x\nd e f,x\na b c,y\n"), filename="a.csv"
    )
    counts = {change["kind"]: change["count"] for change in diff.compare_versions(one, two)["changes"]}
    assert counts == {"relabelled": 2, "rewritten": 0, "added": 1, "dropped": 0}


SEVERAL = ["exact_duplicate", "markup", "too_short", "rare_label"]


@pytest.mark.medium
def test_several_fixes_are_one_version_in_the_order_that_repairs_first(api, member, dirty):
    answer = api(member).post("/api/datasets/dirty/changes", {"did": "fix", "codes": SEVERAL}, format="json")
    assert answer.status_code == 201
    made = dirty.dataset.versions.get(number=2)
    texts = pl.read_parquet(made.path)["text"].to_list()
    assert "a fine day in the old town" in texts and "x" not in texts and texts.count("the same thing said twice") == 1
    assert made.parent == dirty and made.change == {"did": "fix", "codes": SEVERAL, "count": 4, "removed": 3}
    assert "Exact duplicates”, “HTML in the text”" in made.note


@pytest.mark.medium
def test_texts_that_become_equal_by_a_repair_are_duplicates_for_the_next_fix(member, file):
    lines = [f"the clean row number {i} says {i * i},{'good' if i % 2 else 'bad'}" for i in range(30)]
    twins = ["<p>said in the same words</p>,good", "<b>said in the same words</b>,good"]
    version = store_dataset(member, "twins", file("\n".join(["text,label", *lines, *twins]), "twins.csv"))
    made = make(member, version, did="fix", codes=["exact_duplicate", "markup"])
    assert pl.read_parquet(made.path)["text"].to_list().count("said in the same words") == 1


@pytest.mark.parametrize("change", [{"did": "fix"}, {"did": "fix", "codes": []}])
def test_fix_of_nothing_is_refused_with_the_field(api, member, dirty, change):
    answer = api(member).post("/api/datasets/dirty/changes", change, format="json")
    assert answer.status_code == 400 and answer.json()["errors"][0]["field"] in ("code", "codes")


@pytest.mark.medium
def test_preview_shows_each_fix_and_stores_nothing(client, member, dirty):
    client.force_login(member)
    report = client.get("/datasets/dirty/?tab=findings").content.decode()
    assert 'name="codes" value="markup"' in report and "Preview the selected fixes" in report
    page = client.get("/datasets/dirty/fix/?version=1&codes=markup&codes=exact_duplicate").content.decode()
    assert "a fine day in the old town" in page and "1 row changed · 0 rows removed" in page
    assert "0 rows changed · 2 rows removed" in page and "48 rows would remain" in page
    assert Version.objects.count() == 1
    answer = client.post("/datasets/dirty/fix/", {"version": 1, "codes": ["markup", "exact_duplicate"]}, follow=True)
    assert "Version 2 was made" in answer.content.decode() and Version.objects.get(number=2).rows == 48
    assert answer.redirect_chain == [("/datasets/dirty/?tab=findings", 302)]  # where the other findings are


def test_preview_of_nothing_leads_back_to_the_findings(client, member, dirty):
    client.force_login(member)
    answer = client.get("/datasets/dirty/fix/?version=1", follow=True)
    assert "Select the findings to fix first." in answer.content.decode()


def test_large_version_is_fixed_without_a_preview(client, member, dirty, monkeypatch):
    monkeypatch.setattr(changes, "AT_ONCE", 0)
    client.force_login(member)
    page = client.get("/datasets/dirty/fix/?version=1&codes=markup").content.decode()
    assert "too large for a preview" in page and "Save as a new version" in page


@pytest.mark.medium
def test_labels_are_renamed_and_merged_on_the_page(client, member, spelled):
    client.force_login(member)
    assert "Rename or merge labels" in client.get("/datasets/spelled/").content.decode()
    client.post("/datasets/spelled/labels/", {"version": 1, "labels": ["good.", "GOOD"], "to": " Good "})
    made = spelled.dataset.versions.get(number=2)
    assert made.labels["Good"] == 36 and not {"good.", "GOOD"} & set(made.labels)
    answer = client.post("/datasets/spelled/labels/", {"version": 2, "to": "fine"}, follow=True)
    assert "Select at least one label" in answer.content.decode() and spelled.dataset.versions.count() == 2


@pytest.mark.medium
def test_fix_says_how_many_rows_it_removed_and_how_many_it_changed(member, dirty):
    made = make(member, dirty, did="fix", codes=["markup", "too_short", "exact_duplicate"])
    assert made.note.endswith("1 row changed, 3 rows removed")
    with translation.override("zh-hant"):
        assert made.described != made.note and "3" in made.described
    made.note = "cleaned by hand"
    assert made.described == "cleaned by hand"


@pytest.mark.medium
def test_version_with_the_rows_of_another_is_refused(client, member, dirty):
    make(member, dirty, did="fix", code="markup")
    client.force_login(member)
    page = client.post("/datasets/dirty/fix/", {"version": 1, "code": "markup"}, follow=True).content.decode()
    assert "Version 2 has exactly these rows already." in page and dirty.dataset.versions.count() == 2


@pytest.mark.medium
def test_tie_between_labels_is_named_before_its_rows_are_removed(client, member, dirty):
    client.force_login(member)
    for address in ("/datasets/dirty/?tab=findings", "/datasets/dirty/fix/?version=1&codes=label_conflict"):
        assert "all rows of the text are removed" in client.get(address).content.decode()


def test_findings_are_counted_with_their_unit(client, member, spelled):
    client.force_login(member)
    page = client.get("/datasets/spelled/?tab=findings").content.decode()
    assert '<span class="muted">4 rows</span>' in page and " labels</span>" in page
    assert descriptions.describe_count("label_imbalance", 241) == "largest label: 241 rows"


@pytest.mark.medium
def test_comparison_lists_each_step_marks_characters_and_says_what_removed_a_row(client, member, dirty):
    second = make(member, dirty, did="edit", rows={"41": {"text": "a fine day in the old village", "label": "good"}})
    make(member, second, did="fix", code="too_short")
    client.force_login(member)
    page = client.get("/datasets/dirty/compare/?old=1&new=3").content.decode()
    assert "Edited 1 row" in page and page.count("Fixed “Very short texts”: 1 row removed") == 2  # step, and reason
    assert "<del>&lt;b&gt;</del>day" in page and "Text changed" in page and "<h2>Removed" in page


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("a cat", "a cart", "a ca[+r]t"),
        ("貓很可愛", "狗很可愛", "[-貓][+狗]很可愛"),
        ("x" * 400 + "old", "x" * 400 + "new", "…" + "x" * 60 + "[-old][+new]"),
        ("same" + "y" * 400, "Same" + "y" * 400, "[-s][+S]ame" + "y" * 296 + "…"),
    ],
)
def test_changed_characters_are_marked_where_they_are(old, new, shown):
    signs = {"same": "{}", "removed": "[-{}]", "added": "[+{}]"}
    assert "".join(signs[piece.kind].format(piece.text) for piece in mark_changes(old, new)) == shown
