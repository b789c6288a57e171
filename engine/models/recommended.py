"""The base models that Lorasite recommends, as one table: the list of the training form, of the API and of docs/models.md.

`python -m engine.models.recommended` prints the table of docs/models.md. Facts are those that the makers state: on the model's
page on the hub, unless the row names another source. Which operations a model is computed with follows from
engine/models/architectures.py. Imports neither torch nor transformers, so that pages can list models at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from engine.config_sections import SAMPLE_MODEL
from engine.models.architectures import find_architecture
from samples import SAMPLE_LANGUAGE_MODEL


def _(text: str) -> str:
    """Mark a text for makemessages. Pages translate it; the engine itself speaks English."""
    return text


@dataclass(frozen=True, slots=True)
class RecommendedModel:
    """A base model of the hub.

    short_name: an older id on the hub, without an owner, that leads to the same model.
    parameters_m: in millions, embeddings included.
    languages: that it was trained on, as the checks of datasets name them; empty if there are too many to name.
    language_count: how many the makers count.
    longest_text: in tokens.
    safetensors: whether the hub has weights that can be loaded without running code: on the main branch, or as `revision`.
    revision: a commit with such weights, where the main branch has others only.
    """

    name: str
    model_type: str
    parameters_m: float
    languages: tuple[str, ...]
    licence: str
    longest_text: int
    purpose: str
    language_count: int = 1
    short_name: str = ""
    safetensors: bool = True
    revision: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Return every id of the model on the hub."""
        return (self.name, self.short_name) if self.short_name else (self.name,)

    @property
    def fused_kernels(self) -> bool:
        """Return whether it is trained with fused layers."""
        architecture = find_architecture({"model_type": self.model_type})
        return architecture is not None and architecture.run_head is not None

    @property
    def shared_serving(self) -> bool:
        """Return whether all its adapters are served by one copy of it."""
        return find_architecture({"model_type": self.model_type}) is not None


ENGLISH = ("English",)
CHINESE = ("Chinese",)
# The languages of XLM-R's page. Languages that the checks of datasets can't tell apart are one: Bosnian, Croatian and Serbian;
# Indonesian and Malay.
XLM_R_NAMES = (
    "Afrikaans,Albanian,Amharic,Arabic,Armenian,Assamese,Azerbaijani,Basque,Belarusian,Bengali,Breton,Bulgarian,"
    "Burmese,Catalan,Chinese,Czech,Danish,Dutch,English,Esperanto,Estonian,Finnish,French,Galician,Georgian,German,"
    "Greek,Gujarati,Hausa,Hebrew,Hindi,Hungarian,Icelandic,Indonesian,Irish,Italian,Japanese,Javanese,Kannada,Kazakh,"
    "Khmer,Korean,Kurdish,Kyrgyz,Lao,Latin,Latvian,Lithuanian,Macedonian,Malagasy,Malayalam,Marathi,Mongolian,Nepali,"
    "Norwegian,Oriya,Oromo,Pashto,Persian,Polish,Portuguese,Punjabi,Romanian,Russian,Sanskrit,Scottish Gaelic,"
    "Serbo-Croatian,Sindhi,Sinhala,Slovak,Slovene,Somali,Spanish,Sundanese,Swahili,Swedish,Tagalog,Tamil,Telugu,Thai,"
    "Turkish,Ukrainian,Urdu,Uyghur,Uzbek,Vietnamese,Welsh,Western Frisian,Xhosa,Yiddish"
)
XLM_R_LANGUAGES = tuple(XLM_R_NAMES.split(","))

# In the order in which they are offered; of those that read a language, the first one is filled in.
RECOMMENDED_MODELS = (
    RecommendedModel(
        name=SAMPLE_MODEL,
        model_type="bert",
        parameters_m=22.7,
        languages=ENGLISH,
        licence="apache-2.0",
        longest_text=512,
        purpose=_("The sample: installed with Lorasite, small and fast."),
    ),
    RecommendedModel(
        name="distilbert/distilbert-base-uncased",
        short_name="distilbert-base-uncased",
        model_type="distilbert",
        parameters_m=67,
        languages=ENGLISH,
        licence="apache-2.0",
        longest_text=512,
        purpose=_("Almost as accurate as BERT in about half the time."),
    ),
    RecommendedModel(
        name="google-bert/bert-base-uncased",
        short_name="bert-base-uncased",
        model_type="bert",
        parameters_m=110,
        languages=ENGLISH,
        licence="apache-2.0",
        longest_text=512,
        purpose=_("The model that others are compared with."),
    ),
    RecommendedModel(
        name="FacebookAI/roberta-base",
        short_name="roberta-base",
        model_type="roberta",
        parameters_m=125,
        languages=ENGLISH,
        licence="mit",
        longest_text=512,
        purpose=_("More accurate than BERT at the same speed; reads upper and lower case."),
    ),
    RecommendedModel(
        name="albert/albert-base-v2",
        short_name="albert-base-v2",
        model_type="albert",
        parameters_m=11.8,
        languages=ENGLISH,
        licence="apache-2.0",
        longest_text=512,
        purpose=_("The smallest download; its layers share their weights, so it is not faster than BERT."),
    ),
    RecommendedModel(
        name="google/electra-base-discriminator",
        model_type="electra",
        parameters_m=110,
        languages=ENGLISH,
        licence="apache-2.0",
        longest_text=512,
        purpose=_("More accurate than BERT at the same size."),
        revision="622038df5bb2999b99d614f9f604dcc6f08cb3d7",
    ),
    RecommendedModel(
        name="microsoft/mpnet-base",
        model_type="mpnet",
        parameters_m=110,  # arXiv 2004.09297
        languages=ENGLISH,
        licence="mit",  # github.com/microsoft/MPNet
        longest_text=512,
        purpose=_("More accurate than RoBERTa at the same size."),
    ),
    RecommendedModel(
        name="microsoft/deberta-v3-base",
        model_type="deberta-v2",
        parameters_m=184,
        languages=ENGLISH,
        licence="mit",
        longest_text=512,
        purpose=_("The most accurate in English at this size, and slower."),
        revision="82d8d18a7b88346261ba15d8b1044900a452cf90",
    ),
    RecommendedModel(
        name="answerdotai/ModernBERT-base",
        model_type="modernbert",
        parameters_m=149,
        languages=ENGLISH,
        licence="apache-2.0",
        longest_text=8192,
        purpose=_("Long texts, and program code."),
    ),
    RecommendedModel(
        name="jhu-clsp/ettin-encoder-32m",
        model_type="modernbert",
        parameters_m=32,
        languages=ENGLISH,
        licence="mit",
        longest_text=7999,
        purpose=_("Long texts with a small model."),
        safetensors=False,
    ),
    RecommendedModel(
        name="jhu-clsp/ettin-encoder-150m",
        model_type="modernbert",
        parameters_m=150,
        languages=ENGLISH,
        licence="mit",
        longest_text=7999,
        purpose=_("ModernBERT's architecture, trained on open data."),
        safetensors=False,
    ),
    RecommendedModel(
        name="google-bert/bert-base-chinese",
        short_name="bert-base-chinese",
        model_type="bert",
        parameters_m=102,  # github.com/ymcui/MacBERT
        languages=CHINESE,
        licence="apache-2.0",
        longest_text=512,
        purpose=_("Traditional and simplified Chinese, read character by character."),
    ),
    RecommendedModel(
        name="hfl/chinese-macbert-base",
        model_type="bert",
        parameters_m=102,  # github.com/ymcui/MacBERT
        languages=CHINESE,
        licence="apache-2.0",
        longest_text=512,
        purpose=_("More accurate than Chinese BERT at the same size and speed."),
        safetensors=False,
    ),
    RecommendedModel(
        name="nghuyong/ernie-3.0-base-zh",
        model_type="ernie",
        parameters_m=118,  # github.com/PaddlePaddle/PaddleNLP, as are licence and longest text
        languages=CHINESE,
        licence="apache-2.0",
        longest_text=2048,
        purpose=_("Chinese texts that are longer than a page."),
        revision="refs/pr/7",
    ),
    RecommendedModel(
        name="FacebookAI/xlm-roberta-base",
        short_name="xlm-roberta-base",
        model_type="xlm-roberta",
        parameters_m=278,
        languages=XLM_R_LANGUAGES,
        language_count=94,
        licence="mit",
        longest_text=512,
        purpose=_("Texts in many languages, also mixed ones."),
    ),
    RecommendedModel(
        name="jhu-clsp/mmBERT-small",
        model_type="modernbert",
        parameters_m=140,
        languages=(),
        language_count=1833,  # arXiv 2509.06888
        licence="mit",
        longest_text=8192,
        purpose=_("Long texts in almost any language, with a small model."),
        safetensors=False,
    ),
    RecommendedModel(
        name="jhu-clsp/mmBERT-base",
        model_type="modernbert",
        parameters_m=307,
        languages=(),
        language_count=1833,  # arXiv 2509.06888
        licence="mit",
        longest_text=8192,
        purpose=_("Long texts in almost any language; more accurate than XLM-R."),
        safetensors=False,
    ),
    RecommendedModel(
        name=SAMPLE_LANGUAGE_MODEL,
        model_type="llama",
        parameters_m=134.5,
        languages=ENGLISH,
        licence="apache-2.0",
        longest_text=8192,
        purpose=_("The sample language model: comes with Lorasite, and is small enough for a CPU."),
    ),
    RecommendedModel(
        name="Qwen/Qwen3-0.6B",
        model_type="qwen3",
        parameters_m=600,
        languages=(),
        language_count=119,  # arXiv 2505.09388
        licence="apache-2.0",
        longest_text=32768,
        purpose=_("A language model, also as a classifier: long texts in many languages. Needs a GPU to be fast."),
    ),
)
BY_NAME = {name: model for model in RECOMMENDED_MODELS for name in model.names}


def find_recommended(name: str) -> RecommendedModel | None:
    """Return the row of a base model by any of its names; None if it is not in the table."""
    return BY_NAME.get(name)


def licence_of(name: str) -> str:
    """Return the licence of a base model as its makers state it; empty if the table does not have it."""
    model = find_recommended(name)
    return model.licence if model else ""


def covers(trained_on: Collection[str], languages: Collection[str]) -> bool:
    """Return whether a model reads these languages. One that was trained on too many to name reads all."""
    return not trained_on or set(languages) <= set(trained_on)


def readers_of(languages: Collection[str]) -> list[RecommendedModel]:
    """Return the models that read all of these languages: those for few languages first, which read them better."""
    readers = [model for model in RECOMMENDED_MODELS if covers(model.languages, languages)]
    return sorted(readers, key=lambda model: model.language_count)


def markdown_lines() -> Iterator[str]:
    """Yield the lines of the table in docs/models.md."""
    yield "| base model | parameters | languages | licence | longest text | trained with fused layers | served shared | good for |"
    yield "|---|---|---|---|---|---|---|---|"
    for model in RECOMMENDED_MODELS:
        mark = "" if model.safetensors and not model.revision else " ²" if model.revision else " ¹"
        languages = model.languages[0] if model.language_count == 1 else f"{model.language_count:,}"
        cells = [
            f"[`{model.name}`](https://huggingface.co/{model.name}){mark}",
            f"{model.parameters_m:g} M",
            languages,
            model.licence,
            f"{model.longest_text:,}",
            "yes" if model.fused_kernels else "",
            "yes" if model.shared_serving else "",
            model.purpose,
        ]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(markdown_lines()))
