"""The table of recommended base models is what the documentation shows, and fits the rest of the engine."""

import subprocess
import sys
from pathlib import Path

import pytest
from lingua import Language
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from engine import RunConfig
from engine.errors import BaseModelUnsafeError
from engine.models.local_models import list_local_models
from engine.models.recommended import (
    RECOMMENDED_MODELS,
    XLM_R_LANGUAGES,
    find_recommended,
    licence_of,
    markdown_lines,
    readers_of,
)
from engine.models.weight_files import weight_files
from samples import base_model_path

DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.md"
# Names of lingua's languages that the checks of datasets join to one.
JOINED = dict.fromkeys(("Bosnian", "Croatian", "Serbian"), "Serbo-Croatian")
JOINED |= {"Bokmal": "Norwegian", "Nynorsk": "Norwegian", "Malay": "Indonesian"}


def test_documentation_has_the_table_of_the_code():
    assert "\n".join(markdown_lines()) in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("model", RECOMMENDED_MODELS, ids=lambda model: model.name)
def test_model_is_of_a_type_that_transformers_classifies_with(model):
    assert model.model_type in CONFIG_MAPPING
    assert model.model_type in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    assert model.model_type in MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    for name in model.names:
        section = {"name": name, "revision": model.revision or None}
        assert RunConfig.parse({"model": section}).model.name == name and find_recommended(name) is model


def test_names_of_languages_are_those_of_the_checks_of_datasets():
    detected = {JOINED.get(name, name) for name in (language.name.title() for language in Language.all())}
    unread = {"Ganda", "Maori", "Shona", "Sotho", "Tsonga", "Tswana", "Yoruba", "Zulu"}
    assert detected - set(XLM_R_LANGUAGES) == unread


def test_models_for_few_languages_are_suggested_first():
    assert readers_of(["English"])[0].name == "sentence-transformers/all-MiniLM-L6-v2"
    assert readers_of(["Chinese"])[0].short_name == "bert-base-chinese"
    assert readers_of(["Chinese", "English"])[0].short_name == "xlm-roberta-base"
    assert readers_of(["Zulu"])[0].name == "Qwen/Qwen3-0.6B"


def test_fast_paths_follow_from_the_table_of_architectures():
    fast = {model.model_type: (model.fused_kernels, model.shared_serving) for model in RECOMMENDED_MODELS}
    assert fast["bert"] == fast["distilbert"] == fast["xlm-roberta"] == (True, True)
    assert fast["albert"] == (False, True) and fast["modernbert"] == (False, False)


def test_licence_is_known_by_every_name_of_a_model():
    assert licence_of("roberta-base") == licence_of("FacebookAI/roberta-base") == "mit"
    assert licence_of("somebody/model") == ""


def test_models_of_this_machine_are_listed_with_what_their_files_say(bases, tmp_path):
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner/tiny").symlink_to(bases / "tiny")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/config.json").write_text("{")
    models = {model.name: model for model in list_local_models(tmp_path)}
    assert [model.place for model in models.values()][:3] == ["sample", "folder", "folder"]
    facts = models["owner/tiny"].read_facts()
    assert facts.longest_text == 512 and facts.config["model_type"] == "bert"
    assert facts.parameters == pytest.approx(506_000, rel=0.05)
    assert models["damaged"].read_facts().parameters is None


@pytest.mark.parametrize(
    "content",
    [
        '{"model_type": []}',
        '{"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": "one"}',
        '{"model_type": "bert", "get_text_config": 5, "max_position_embeddings": -1}',
        '{"model_type": "bert", "auto_map": {}}',
    ],
)
def test_strange_config_has_no_facts_and_breaks_no_list(tmp_path, content):
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange/config.json").write_text(content)
    (tmp_path / "strange/README.md").write_bytes(b"---\nlanguage: [\xff\n---\n")
    facts = list_local_models(tmp_path)[1].read_facts()
    assert (facts.longest_text, facts.parameters, facts.card) == (None, None, {})


def test_pickle_on_the_main_branch_is_refused_with_the_commit_that_has_safetensors(tmp_path):
    with pytest.raises(BaseModelUnsafeError, match=r"Set model\.revision to 82d8d18a7b88"):
        weight_files(tmp_path, "microsoft/deberta-v3-base")
    with pytest.raises(BaseModelUnsafeError, match="Convert them to safetensors first"):
        weight_files(tmp_path, "hfl/chinese-macbert-base")


def test_sample_has_the_size_and_the_length_of_the_table(tmp_path):
    (tmp_path / "copy").symlink_to(base_model_path())
    (model,) = (model for model in list_local_models(tmp_path) if model.name == "copy")
    facts, sample = model.read_facts(), RECOMMENDED_MODELS[0]
    assert facts.longest_text == sample.longest_text
    assert facts.parameters == pytest.approx(1e6 * sample.parameters_m, rel=0.01)


@pytest.mark.medium
def test_listing_imports_neither_torch_nor_transformers():
    code = "import sys, engine.models.local_models as m; m.list_local_models(None); print({'torch', 'transformers'} & {*sys.modules})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "set()\n"
