"""Which languages the texts have, and which rows are in another language than most.

lingua detects the languages of a sample. Rows whose words are common in the main language need no detector; what is left of
all rows is few, so even a dozen foreign rows among a million can be found.
"""

from dataclasses import dataclass
from functools import cache

import polars as pl

from datasets_app.checks import UNKNOWN_LANGUAGE
from datasets_app.versions.canonical import SLICE, count_values
from engine.data.languages import detector_of_all_languages
from engine.data.near_duplicates import extract_words

SAMPLE = 1_000  # rows; lingua detects the language of about 2,000 short texts a second on two cores
WORDS_SAMPLE = 10_000  # rows that the familiar words are taken from
MOST_UNFAMILIAR = 3_000  # rows that are given to lingua beside the sample
BEGINNING = 200  # characters of a text that are looked at
_FEWEST_LETTERS = 30  # in a shorter text even people cannot always tell the language
_FEWEST_LETTERS_TOGETHER = 20  # where many texts decide
_FEWEST_HAN = 4  # Chinese characters say more than letters
_FEWEST_ROWS = 10
_LEAST_MAIN_SHARE = 0.6
_MOST_UNSURE = 0.2
_LEAST_CONFIDENCE = 0.9
# Of 31,000 tweets in English lingua takes 240 for another language with this confidence; of those whose words are mostly
# unfamiliar, ten, and half of them are no English.
_FAMILIAR_SHARE = 0.45  # of a text's words
_FREQUENT_WORDS = 100
_FREQUENT_SHARE = 0.3  # of a text's words; 80 % of English tweets have more, and need no closer look
_SMALL_SAMPLE = 1_000  # rows; in a larger one a word that stands once may be foreign
_NOISE = r"https?://\S+|[@#]\w+|&\w+;|\x{fffd}|_"
_WORD = r"\w+"
_HAN = r"\p{Han}"
_KANA_HANGUL = r"[\p{Hiragana}\p{Katakana}\p{Hangul}]"
TRADITIONAL = "Chinese (Traditional)"
SIMPLIFIED = "Chinese (Simplified)"
CHINESE = "Chinese"  # in characters that both scripts share
_NAMES = {  # languages that a detector of short texts can't tell apart
    **dict.fromkeys(("Bokmal", "Nynorsk"), "Norwegian"),
    **dict.fromkeys(("Bosnian", "Croatian", "Serbian"), "Serbo-Croatian"),
    "Malay": "Indonesian",
}


_RANKED = {"language": pl.String, "confidence": pl.Float64}
_NONE = pl.DataFrame(schema={"row": pl.UInt32, "language": pl.String})


@dataclass(frozen=True)
class LanguageSurvey:
    """The languages of a sample, and the rows in another language than most."""

    counts: dict[str, int]  # {language: rows of the sample}, the most frequent first
    others: pl.DataFrame  # row, language
    one_in: int = 1  # how many rows each of `others` stands for


def survey_languages(frame: pl.DataFrame) -> LanguageSurvey:
    """Detect the main language by a sample, then find the rows in another one."""
    rows = long_enough(frame)
    sample = frame[rows.gather_every(max(1, -(-rows.len() // SAMPLE)))]  # rounded up
    ranked = rank(sample["text"], _FEWEST_LETTERS_TOGETHER)
    detected = _sure(ranked)
    main = main_of(detected)
    if main is None or _is_doubtful(ranked, main):
        unknown = {UNKNOWN_LANGUAGE: sample.height} if sample.height else {}
        return LanguageSurvey(unknown, _NONE)
    words = FamiliarWords(sample["text"].filter(detected == main))
    if not main.startswith(CHINESE) and rows.len() > sample.height:
        more = frame["text"][rows.gather_every(max(1, -(-rows.len() // WORDS_SAMPLE)))]
        words = FamiliarWords(more.filter(words.prevail(more)))
    is_main = (detected == CHINESE) if main.startswith(CHINESE) else words.prevail(sample["text"])
    named = pl.select(
        pl.when(is_main).then(pl.lit(main)).otherwise(detected.fill_null(UNKNOWN_LANGUAGE)).alias("language")
    )
    counts = count_values(named["language"])
    if sample.height < _FEWEST_ROWS:
        return LanguageSurvey(counts, _NONE)

    unfamiliar = _unfamiliar_rows(frame, rows, main, words)
    one_in = max(1, -(-unfamiliar.len() // MOST_UNFAMILIAR))
    candidates = frame[unfamiliar.gather_every(one_in)]
    candidates = candidates.select("row", detect(candidates["text"]).alias("language"))
    same = [main, CHINESE] if main.startswith(CHINESE) else [main]
    return LanguageSurvey(counts, candidates.filter(~pl.col("language").is_in(same)), one_in)


def long_enough(frame: pl.DataFrame) -> pl.Series:
    """Return the indexes of the rows whose text may be long enough to detect its language."""
    text = pl.col("text")
    return frame.select((text.str.len_chars() >= _FEWEST_LETTERS) | text.str.contains(_HAN))["text"].arg_true()


def detect(texts: pl.Series, fewest_letters: int = _FEWEST_LETTERS) -> pl.Series:
    """Return the language of each text, null where the detector is not sure."""
    return _sure(rank(texts, fewest_letters))


def _sure(ranked: pl.DataFrame) -> pl.Series:
    return ranked.select(pl.when(pl.col("confidence") >= _LEAST_CONFIDENCE).then("language"))["language"]


def rank(texts: pl.Series, fewest_letters: int = _FEWEST_LETTERS) -> pl.DataFrame:
    """Return the likeliest `language` of each text, null if it is too short, and the `confidence`, from 0 to 1.

    Chinese is told by its characters.
    """
    cleaned = texts.str.slice(0, BEGINNING).str.replace_all(_NOISE, " ")
    letters = cleaned.str.count_matches(r"\p{L}")
    han = cleaned.str.count_matches(_HAN)
    is_chinese = (han >= _FEWEST_HAN) & (han * 2 > letters) & ~cleaned.str.contains(_KANA_HANGUL)
    # A garbled text is in no language; a few stray letters of a rare script would decide.
    is_garbled = texts.str.contains("\ufffd", literal=True)
    is_long = (letters >= fewest_letters) & ~is_chinese & ~is_garbled
    ranked = detector_of_all_languages().compute_language_confidence_values_in_parallel(
        cleaned.filter(is_long).to_list()
    )
    likeliest = []
    for values in ranked:
        names = [value.language.name.title() for value in values[:3]]
        shared = [_NAMES.get(name, name) for name in names]  # languages that share a name count together
        together = sum(value.value for value, name in zip(values, shared, strict=False) if name == shared[0])
        likeliest.append((shared[0], together))
    by_lingua = pl.DataFrame(likeliest, schema=_RANKED, orient="row")
    only_simplified, only_traditional = one_script_characters()
    chinese = cleaned.filter(is_chinese)
    simplified = chinese.str.count_matches(f"[{only_simplified}]")
    traditional = chinese.str.count_matches(f"[{only_traditional}]")
    not_simplified = pl.when(traditional > simplified).then(pl.lit(TRADITIONAL)).otherwise(pl.lit(CHINESE))
    script = pl.when(simplified > traditional).then(pl.lit(SIMPLIFIED)).otherwise(not_simplified)
    by_characters = pl.select(script.alias("language")).with_columns(confidence=1.0)
    language = pl.Series("language", [None] * texts.len(), dtype=pl.String)
    confidence = pl.Series("confidence", [0.0] * texts.len())
    for rows, found in ((is_long.arg_true(), by_lingua), (is_chinese.arg_true(), by_characters)):
        language = language.scatter(rows, found["language"])
        confidence = confidence.scatter(rows, found["confidence"])
    return pl.DataFrame([language, confidence])


@cache
def one_script_characters() -> tuple[str, str]:
    """Return the characters that only Simplified Chinese has, and those that only Traditional has, by CC-CEDICT."""
    from zhon import cedict

    simplified = set(cedict.simplified)
    traditional = set(cedict.traditional)
    return "".join(sorted(simplified - traditional)), "".join(sorted(traditional - simplified))


def main_of(languages: pl.Series) -> str | None:
    """Return the most frequent language; of Chinese its more frequent script. None if no language was detected."""
    families = languages.drop_nulls().str.replace(r" \(.*", "")
    family = families.mode().sort().first()
    if family != CHINESE:
        return str(family) if family is not None else None
    scripts = languages.filter(languages.is_in([SIMPLIFIED, TRADITIONAL]))
    return str(scripts.mode().sort().first() or CHINESE)


def _is_doubtful(ranked: pl.DataFrame, main: str) -> bool:
    """Return whether the texts may be in a language that lingua doesn't know: then it is unsure, and names several."""
    likeliest = ranked.drop_nulls("language")
    is_main = likeliest["language"].str.starts_with(main.partition(" (")[0])
    is_unsure = likeliest["confidence"] < _LEAST_CONFIDENCE
    return bool(is_main.mean() < _LEAST_MAIN_SHARE and is_unsure.mean() > _MOST_UNSURE)  # type: ignore[operator]


class FamiliarWords:
    """The words of texts that are known to be in the main language."""

    def __init__(self, texts: pl.Series) -> None:
        words = extract_words(_lowered(texts)).unique(["at", "word"])["word"].value_counts(sort=True)
        fewest = 1 if texts.len() < _SMALL_SAMPLE else 2
        self.all = words.filter(pl.col("count") >= fewest)["word"]
        self.frequent = [f" {word} " for word in words["word"].head(_FREQUENT_WORDS)]

    def prevail(self, texts: pl.Series) -> pl.Series:
        """Return for each text whether enough of its words are familiar."""
        lowered = texts.str.slice(0, BEGINNING).str.to_lowercase()
        padded = " " + lowered + " "
        frequent = padded.str.find_many(self.frequent, overlapping=True).list.len()
        is_familiar = frequent >= _FREQUENT_SHARE * lowered.str.count_matches(_WORD)
        rest = (~is_familiar).arg_true()
        words = extract_words(_lowered(texts[rest]))
        # A join, because is_in within the groups would search the list anew for each of them.
        familiar = words.join(self.all.to_frame(), on="word", how="semi").group_by("at").len("familiar")
        shares = words.group_by("at").len("words").join(familiar, on="at")
        shares = shares.filter(pl.col("familiar") >= _FAMILIAR_SHARE * pl.col("words"))
        return is_familiar.scatter(rest[shares["at"].cast(pl.Int64)], True)


def _lowered(texts: pl.Series) -> pl.Series:
    return texts.str.slice(0, BEGINNING).str.replace_all(_NOISE, " ").str.to_lowercase()


def _unfamiliar_rows(frame: pl.DataFrame, rows: pl.Series, main: str, words: FamiliarWords) -> pl.Series:
    """Return those of the rows (indexes) that may be in another language than the main one."""
    parts = []
    for part in rows.to_frame("at").iter_slices(SLICE):
        texts = frame["text"][part["at"]]
        is_main = _is_in_script(texts, main) if main.startswith(CHINESE) else words.prevail(texts)
        parts.append(part["at"].filter(~is_main))
    return pl.concat(parts)


def _is_in_script(texts: pl.Series, script: str) -> pl.Series:
    """Return whether each text is Chinese and has no character that only the other script has."""
    only_simplified, only_traditional = one_script_characters()
    beginnings = texts.str.slice(0, BEGINNING)
    other = only_traditional if script == SIMPLIFIED else only_simplified
    han = beginnings.str.count_matches(_HAN)
    is_chinese = (han * 2 > beginnings.str.count_matches(r"\p{L}")) & ~beginnings.str.contains(_KANA_HANGUL)
    return is_chinese & ~beginnings.str.contains(f"[{other}]")


def main_language(texts: list[str]) -> str:
    """Return the English name of the language of most texts; an empty string if none can be detected."""
    languages = detect(pl.Series("text", texts, dtype=pl.String), fewest_letters=1)
    return (main_of(languages) or "").removesuffix(" (Simplified)").removesuffix(" (Traditional)")
