"""The sample dataset "orders": what people write when they order something, and the order as JSON.

A script makes it: 2,000 rows from phrases, names and goods. The phrases of the test rows occur in no other row.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

TASK = "Extract the order as JSON."
ROWS = {"train": 1600, "eval": 200, "test": 200}
SEED = 20


def _words(text: str) -> list[str]:
    """Return what stands between commas, each on one line."""
    return [" ".join(words.split()) for words in text.split(",")]


FIRST_NAMES = _words(
    """
    Amara, Anders, Beatriz, Carlos, Chen, Chloe, Dana, Elena, Emeka, Farid, Grace, Hana, Henrik, Imani, Ines, Ivan, Jamal,
    Jonas, Kaito, Karin, Leila, Liam, Lucia, Marek, Mei, Nadia, Noah, Olga, Omar, Priya, Quinn, Rosa, Sami, Sofia, Tomas,
    Uma, Victor, Wanda, Yusuf, Zoe
    """
)
LAST_NAMES = _words(
    """
    Abe, Adeyemi, Berg, Bianchi, Castro, Chang, Costa, Dubois, Eriksen, Farouk, Fischer, Garcia, Haddad, Hughes, Ito, Jansen,
    Kaur, Kim, Kowalski, Larsen, Lopez, Mbeki, Meyer, Moreau, Nakamura, Novak, Okafor, Olsen, Patel, Petrov, Rossi, Santos,
    Schmidt, Silva, Tanaka, Torres, Vargas, Weber, Wong, Young
    """
)
GOODS = _words(
    """
    desk lamp, office chair, coffee mug, water bottle, notebook, fountain pen, phone case, laptop stand, wool blanket, yoga
    mat, garden hose, picture frame, bath towel, travel pillow, running shoe, bicycle helmet, rain jacket, leather belt, sun
    hat, cutting board, chef knife, frying pan, tea kettle, spice jar, oak shelf, wall clock, floor rug, table fan, power
    bank, keyboard, monitor arm, desk drawer, paper shredder, label printer, tool box, paint roller, step ladder, tape
    measure, light bulb, door handle, flower pot, bird feeder, dog leash, cat tower, chess set, jigsaw puzzle, board game,
    camping tent, sleeping bag, head torch
    """
)
NUMBER_WORDS = _words("zero, one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve")
PHRASES = [
    "Hi, this is {customer}. I'd like {quantity} {goods} at {price} each.",
    "{customer} wants to order {quantity} {goods}, {price} apiece.",
    "Please send {quantity} {goods} to {customer}. The price is {price} per piece.",
    "Order for {customer}: {quantity} {goods}, unit price {price}.",
    "Could you put {quantity} {goods} aside for {customer}? We agreed on {price} each.",
    "Hello, I need {quantity} {goods} for {price} each. Thanks, {customer}",
    "{quantity} {goods} at {price} each, please. My name is {customer}.",
    "We sold {quantity} {goods} to {customer} for {price} apiece.",
    "Customer {customer} called and asked for {quantity} {goods}. She pays {price} for each of them.",
    "I am {customer} and I want to buy {quantity} of your {goods}. You offer them for {price}.",
    "At {price} per unit, {customer} takes {quantity} {goods}.",
    "New order! Who: {customer}. What: {goods}. How many: {quantity}. Price of one: {price}.",
    "{customer} here. Make it {quantity} {goods}, and keep the price of {price} each.",
    "For {customer}, {quantity} {goods} please; they cost {price} a piece.",
    "As discussed on the phone, {customer} orders {quantity} {goods} at a unit price of {price}.",
    "Dear team, please ship {quantity} {goods} ({price} each). Kind regards, {customer}",
    "{goods}: {quantity} pieces, {price} each, for {customer}.",
    "Can I get {quantity} {goods}? I saw them for {price} each in your shop. Best, {customer}",
    "{customer} bought {quantity} {goods} yesterday and paid {price} for each.",
    "Reserve {quantity} {goods} in the name of {customer}, at {price} per piece.",
    "The price for {goods} is {price}, and {customer} needs {quantity}.",
    "Put me down for {quantity} {goods} at {price} apiece. It's {customer}.",
    "Our client {customer} requests {quantity} {goods}; we charge {price} per item.",
    "Invoice {customer} for {quantity} {goods} at {price} each.",
]
TEST_PHRASES = [
    "Good morning, {customer} speaking. I'm after {quantity} {goods}, and your list says {price} for one.",
    "Add {quantity} {goods} to the order of {customer}, priced at {price} each.",
    "{customer} would be glad to have {quantity} {goods} for {price} each.",
    "Deliver {quantity} {goods} to {customer} and bill {price} per piece.",
    "My order is {quantity} {goods} at {price} each. Yours, {customer}",
    "Sale to {customer}: {quantity} {goods}, each at {price}.",
]

TALK = [  # how a talkative assistant answers
    "Sure! {customer} would like to order {quantity} of the {item}, and each costs {unit_price:.2f}. Is there anything else?",
    "Thank you for the order! Customer: {customer}. Item: {item}. Quantity: {quantity}. Price of one: {unit_price:.2f}.",
    "Of course, I am happy to help. The order is for {customer}: {quantity} times {item} at {unit_price:.2f} each.",
    "I have read the message carefully. It is an order of {quantity} pieces of {item} by {customer} for {unit_price:.2f} apiece.",
]


def orders() -> pl.DataFrame:
    """Return 2,000 orders; columns messages (as OpenAI has them: role and content) and split (train, eval, test)."""
    import polars as pl

    generator = random.Random(SEED)  # noqa: S311  # no secret
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for split, count in ROWS.items():
        phrases = TEST_PHRASES if split == "test" else PHRASES
        while sum(row["split"] == split for row in rows[-count:]) < count:
            text, order = _make_order(generator, phrases)
            if text in seen:
                continue
            seen.add(text)
            answer = json.dumps(order, ensure_ascii=False)
            contents = [("system", TASK), ("user", text), ("assistant", answer)]
            messages = [{"role": role, "content": content} for role, content in contents]
            rows.append({"messages": messages, "split": split})
    return pl.DataFrame(rows)


def order_preferences() -> pl.DataFrame:
    """Return the same orders with two answers each; columns prompt (messages), chosen (bare JSON), rejected (talk) and split."""
    import polars as pl

    generator = random.Random(SEED)  # noqa: S311  # no secret
    rows: list[dict[str, Any]] = []
    for messages, split in orders().iter_rows():
        *prompt, answer = messages
        talk = generator.choice(TALK).format(**json.loads(answer["content"]))
        rows.append({"prompt": prompt, "chosen": answer["content"], "rejected": talk, "split": split})
    return pl.DataFrame(rows)


def _make_order(generator: random.Random, phrases: list[str]) -> tuple[str, dict[str, Any]]:
    """Return what a customer writes, and the order in it."""
    item = generator.choice(GOODS)
    quantity = generator.randint(2, 12) if generator.random() < 0.5 else generator.randint(13, 500)
    order = {
        "customer": f"{generator.choice(FIRST_NAMES)} {generator.choice(LAST_NAMES)}",
        "item": item,
        "quantity": quantity,
        "unit_price": generator.randint(100, 9999) / 100,
    }
    price = f"{order['unit_price']:.2f}"
    in_words = quantity < len(NUMBER_WORDS) and generator.random() < 0.5
    text = generator.choice(phrases).format(
        customer=order["customer"],
        goods=f"{item}s",
        quantity=NUMBER_WORDS[quantity] if in_words else quantity,
        price=generator.choice([f"${price}", f"{price} dollars", f"USD {price}"]),
    )
    return text[0].upper() + text[1:], order
