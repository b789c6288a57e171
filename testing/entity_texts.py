"""Make texts with marked persons, places, organizations, products and dates from templates, in English and Chinese.

Names are ambiguous on purpose (Jordan, Washington, Ford, May; 中山, 長榮), so that a dictionary of names is not enough.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import polars as pl

Language = Literal["en", "zh"]
LABELS = ("date", "organization", "person", "place", "product")
UNSEEN = 3  # every third name of a kind stands in held-out texts only

TEMPLATES: dict[Language, tuple[str, ...]] = {
    "en": (
        "{person} moved to {place} in {date}.",
        "{person} has worked for {organization} since {date}.",
        "Yesterday {organization} presented the {product} in {place}.",
        "I bought a {product} in {place} and I love it 😍",
        "Did {person} ever reply to {person}?",
        "{person}'s flight to {place} leaves on {date}.",
        "The {product} by {organization} will be sold from {date} on.",
        "We met {person} and {person} at the {organization} office.",
        "{place} was flooded on {date}, says {organization}.",
        "According to {person}, {organization} will close its plant in {place}.",
        "My {product} broke after two weeks, and {organization} won't answer.",
        "From {place} to {place} it takes four hours by train.",
        "{organization} hired {person} as head of research on {date}.",
        "Has anyone tried the {product} yet? {person} says it's great 👍🏽",
        "The concert in {place} on {date} was cancelled.",
        "{person} was born in {place} on {date}.",
        "Call {person} about the contract with {organization}, please.",
        "Tickets for {place} cost 40 euros until {date}.",
        "On {date}, {person} resigned from {organization}.",
        "{organization} and {organization} agreed to build a factory near {place}.",
        "Mayor {person} opened the new library of {place}.",
        "The weather in {place} is lovely today ☀️",
        "Compared with the {product}, the {product} is slow.",
        "Dr. {person} will speak at {organization} on {date}.",
        "Send the {product} back to {organization} before {date}.",
        "Shares of {organization} fell by 4 % on {date}.",
        "{person} drove a {product} from {place} to {place}.",
        "Two engineers at {organization} designed the {product}.",
        "We stayed in {place} for a week, then flew to {place}.",
        "Mrs. {person} lives in {place}.",
        "The judge asked {person} where he was on {date}.",
        "Is {place} further north than {place}?",
        "{organization} sued {organization} over the {product}.",
        "Thanks, {person}! See you on {date} 🎉",
        "The {organization}-owned shop in {place} sells the {product}.",
        "{person} (born {date}) writes about {place}.",
        "A spokesman of {organization} declined to comment.",
        "Nobody in {place} had heard of {person} before {date}.",
        "The museum in {place} shows letters of {person}.",
        "Fans queued in {place} to buy the {product}.",
        "It rained all day and nothing happened.",
        "I may call you in the evening, or not at all.",
        "The train was late again, and the coffee was cold.",
        "They ford the river where it is shallow.",
        "Prices rose faster than wages, as usual.",
        "You should march on and never look back.",
    ),
    "zh": (
        "{person}在{date}搬到{place}。",
        "{person}從{date}起在{organization}工作。",
        "{organization}昨天在{place}發表了{product}。",
        "我在{place}買了{product}，非常喜歡😍",
        "{person}回覆{person}了嗎？",
        "{person}飛往{place}的班機{date}起飛。",
        "{organization}的{product}將於{date}開賣。",
        "我們在{organization}遇見{person}、{person}和他們的同事。",
        "{organization}表示，{place}在{date}淹水了。",
        "據{person}說，{organization}要關閉{place}的工廠。",
        "我的{product}用兩週就壞了，{organization}卻不理我。",
        "從{place}到{place}搭火車要四個小時。",
        "{organization}於{date}聘請{person}擔任研發主管。",
        "有人用過{product}嗎？{person}說很好用👍🏽",
        "原定{date}在{place}舉行的演唱會取消了。",
        "{person}{date}出生於{place}。",
        "請打電話給{person}，談談與{organization}的合約。",
        "{date}以前到{place}的車票只要四十元。",
        "{date}，{person}辭去{organization}的職務。",
        "{organization}與{organization}同意在{place}附近設廠。",
        "{place}市長{person}為新圖書館揭幕。",
        "今天{place}的天氣真好☀️",
        "和{product}相比，{product}比較慢。",
        "{person}教授{date}將在{organization}演講。",
        "請在{date}前把{product}寄回{organization}。",
        "{organization}的股價在{date}下跌百分之四。",
        "{person}開著{product}從{place}到{place}。",
        "{organization}的兩位工程師設計了{product}。",
        "我們在{place}住了一週，再飛到{place}。",
        "{person}女士住在{place}。",
        "法官問{person}{date}人在哪裡。",
        "{organization}因為{product}控告{organization}。",
        "謝謝{person}！我們{date}見🎉",
        "{person}（{date}生）常寫{place}的故事。",
        "{organization}的發言人不願評論。",
        "{date}以前，{place}沒有人聽過{person}。",
        "雨下了一整天，什麼事也沒發生。",
        "火車又誤點了，咖啡也涼了。",
        "物價漲得比薪水快，一如往常。",
    ),
}
FORENAMES = (
    *("Anna", "Jordan", "Maria", "Austin", "Paul", "April", "Wei", "Georgia", "Ahmed", "Chelsea", "Zoë", "June"),
    *("Lars", "Florence", "Priya", "Dakota", "José", "Victoria", "Ivan", "Sydney", "Nguyen", "Brooklyn", "Kofi", "May"),
)
SURNAMES = (
    *("Washington", "Smith", "Lincoln", "García", "Ford", "Chen", "London", "Müller", "Kobayashi", "Benz", "Okafor"),
    *("Berlin", "O'Neill", "Houston", "Novák", "Dell", "Larsen", "York", "Patel", "Cadbury", "Rossi", "Paris", "Hart"),
)
CHINESE_SURNAMES = ("陳", "林", "黃", "張", "李", "王", "吳", "劉", "蔡", "楊", "歐陽", "司馬")
CHINESE_FORENAMES = (
    *("志明", "春嬌", "中山", "美玲", "家豪", "淑芬", "長榮", "雅婷", "建國", "怡君", "大同", "俊傑", "心怡", "台生"),
    *("冠宇", "麗華", "國泰", "子涵"),
)
NAMES: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "person": tuple(f"{forename} {surname}" for forename in FORENAMES for surname in SURNAMES) + FORENAMES,
        "place": (
            *(
                "Washington",
                "Paris",
                "Jordan",
                "New York",
                "Taipei",
                "São Paulo",
                "Austin",
                "Berlin",
                "Georgia",
                "Houston",
            ),
            *("Lincoln", "Kaohsiung", "Sydney", "London", "Zürich", "Florence", "Lake Victoria", "Brooklyn", "Nairobi"),
            *("Chelsea", "South Dakota", "Hong Kong", "Winston-Salem", "St. Louis", "Osaka", "Lagos", "Perth", "Cork"),
        ),
        "organization": (
            *("Ford", "Dell", "Washington Post", "Acme Corporation", "Apple", "Lincoln Bank", "Paris Match", "Cadbury"),
            *(
                "Austin Water",
                "United Nations",
                "London School of Economics",
                "Benz & Sons",
                "Amazon",
                "Orange",
                "Siemens",
            ),
            *("York University", "Jordan Airlines", "Berlin Philharmonic", "Hart Brothers", "Bank of Georgia", "H&M"),
        ),
        "product": (
            *(
                "Galaxy S24",
                "Jordan 1",
                "iPhone 15 Pro",
                "Ford Focus",
                "ThinkPad X1",
                "Florence 3000",
                "Dairy Milk",
                "Kindle",
            ),
            *(
                "Model T",
                "Apple Watch",
                "Lincoln Navigator",
                "PlayStation 5",
                "Berlin Backpack",
                "Echo Dot",
                "Orange Box",
            ),
        ),
        "date": (
            *(
                "3 March 2024",
                "12 May",
                "last Tuesday",
                "June 2023",
                "2024-05-01",
                "the 4th of July",
                "1999",
                "next Friday",
            ),
            *(
                "April 7th",
                "Christmas Day",
                "9/11/2025",
                "Monday, 2 June",
                "late August",
                "31 December 1984",
                "tomorrow",
            ),
        ),
    },
    "zh": {
        "person": tuple(surname + forename for surname in CHINESE_SURNAMES for forename in CHINESE_FORENAMES),
        "place": (
            *(
                "台北",
                "中山",
                "高雄市",
                "花蓮",
                "紐約",
                "巴黎",
                "東京",
                "大同區",
                "香港",
                "新竹",
                "溫哥華",
                "日月潭",
                "南投縣",
            ),
            *("華盛頓", "澎湖", "金門", "淡水河", "洛杉磯", "阿里山", "釜山", "建國路"),
        ),
        "organization": (
            *(
                "長榮",
                "國泰",
                "大同",
                "台積電",
                "中山大學",
                "聯合國",
                "東京銀行",
                "華盛頓郵報",
                "建國中學",
                "蘋果",
                "福特",
            ),
            *("台北市政府", "金門酒廠", "新竹科學園區", "高雄捷運公司", "亞馬遜", "巴黎銀行", "志明書局"),
        ),
        "product": (
            *(
                "大同電鍋",
                "蘋果手機",
                "福特Focus",
                "Galaxy S24",
                "任天堂Switch",
                "金門高粱",
                "華盛頓蘋果",
                "PlayStation 5",
            ),
            *("春嬌牌洗衣精", "長榮模型機", "阿里山高山茶", "ThinkPad X1"),
        ),
        "date": (
            *(
                "2024年5月3日",
                "下週三",
                "五月十二日",
                "去年十月",
                "昨晚八點",
                "1999年",
                "中秋節",
                "3月14日",
                "民國八十年",
            ),
            *("2025-01-01", "星期一", "今年六月底"),
        ),
    },
}


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A text and its entities, each a start and an end in code points and a label, ascending."""

    text: str
    spans: list[tuple[int, int, str]]

    def stored_label(self) -> str:
        """Return the spans as a dataset of the kind `spans` stores them."""
        spans = [{"start": start, "end": end, "label": label} for start, end, label in self.spans]
        return json.dumps(spans, ensure_ascii=False)


def make_entity_texts(
    count: int, seed: int, languages: Sequence[Language] = ("en", "zh"), held_out: bool = False
) -> list[MarkedText]:
    """Return `count` texts, the same ones for the same arguments.

    held_out: names that the other texts never have stand among the known ones; half of the names are such.
    """
    generator = random.Random(f"{seed} {held_out}")
    return [_fill(generator.choice(languages), generator, held_out) for _ in range(count)]


def make_entity_frame(
    train: int, evaluation: int, seed: int, languages: Sequence[Language] = ("en", "zh")
) -> pl.DataFrame:
    """Return a dataset of the kind `spans` with the columns text, label and split (train and eval)."""
    import polars as pl  # deferred: making texts needs no polars

    parts = [("train", make_entity_texts(train, seed, languages))]
    parts += [("eval", make_entity_texts(evaluation, seed, languages, held_out=True))]
    rows = [(marked.text, marked.stored_label(), split) for split, texts in parts for marked in texts]
    return pl.DataFrame(rows, schema=["text", "label", "split"], orient="row")


def _fill(language: Language, generator: random.Random, held_out: bool) -> MarkedText:
    """Fill a template with names."""
    text = ""
    spans: list[tuple[int, int, str]] = []
    for part in re.split(r"(\{\w+\})", generator.choice(TEMPLATES[language])):
        if not part.startswith("{"):
            text += part
            continue
        label = part[1:-1]
        name = generator.choice(_names(language, label, unseen=held_out and generator.random() < 0.5))
        spans.append((len(text), len(text) + len(name), label))
        text += name
    return MarkedText(text, spans)


def _names(language: Language, label: str, unseen: bool) -> list[str]:
    """Return the names that stand in all texts, or those that stand in held-out ones only."""
    return [name for number, name in enumerate(NAMES[language][label]) if (number % UNSEEN == UNSEEN - 1) is unseen]
