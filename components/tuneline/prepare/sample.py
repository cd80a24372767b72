"""The sample data set: messages to a support desk, one intent each, made by a committed, seeded generator.

`sample:support_desk` names it. People ask for the same thing in many words, so half of the ways to ask occur in no
training row (paraphrase); they mistype (typos), ask for a refund more often than for an invoice (imbalance), and some
training rows were filed under a wrong intent (label noise). Word counts alone do not carry a classifier over that.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

from tuneline.errors import InputError

URI = "sample:support_desk"
SEED = 20261124
ROWS = {"train": 1200, "validation": 240, "test": 800}
TYPO_SHARE = 0.05
NOISE_SHARE = 0.04

# Intent -> (weight, ways to ask). Training rows draw from the first half of the ways, held-out rows from all of them.
INTENTS: dict[str, tuple[int, list[str]]] = {
    "refund": (24, [
        "I want my money back for {thing}", "please refund {thing}", "when do I get the refund for {thing}",
        "you charged me for {thing} and I sent it back", "how do I return {thing} and get reimbursed",
        "the amount I paid for {thing} has not been returned to my card",
        "I would like to be paid back, {thing} was not what I expected", "reimburse me for {thing}",
        "still waiting for the cash after giving {thing} back", "can the purchase of {thing} be reversed",
        "my bank shows no repayment for {thing}", "undo the payment for {thing} and credit my account",
    ]),
    "delivery": (22, [
        "where is my parcel with {thing}", "the package with {thing} has not arrived",
        "tracking says {thing} was delivered but it is not here", "how long does shipping of {thing} take",
        "my order of {thing} is late", "when will {thing} be shipped",
        "the courier never showed up with {thing}", "nobody brought {thing} to my door yet",
        "any idea which day {thing} will turn up", "{thing} seems to be lost in the mail",
        "I am still expecting {thing}, it should have reached me last week", "has {thing} left your warehouse",
    ]),
    "login": (18, [
        "I forgot my password", "I cannot log in to my account", "the reset link does not work",
        "my account is locked after too many attempts", "login fails with a wrong password message",
        "the two factor code never arrives when I log in",
        "I am shut out of my profile", "how can I get back in, the site does not accept my credentials",
        "it keeps rejecting what I type at the sign in page", "the authenticator does not let me through",
        "access denied although I entered everything correctly", "need a new passphrase to enter the portal",
    ]),
    "cancel": (12, [
        "cancel my subscription", "I want to cancel the order of {thing}", "stop my membership at the end of the month",
        "how do I cancel the renewal", "please cancel {thing} before it ships", "end my plan and close the contract",
        "I no longer wish to be a customer", "do not renew me next year",
        "I changed my mind, do not send {thing}", "terminate the agreement as of today",
        "I would like to opt out of the monthly box", "call off the purchase of {thing}",
    ]),
    "damaged": (9, [
        "{thing} arrived broken", "{thing} is defective", "the screen of {thing} is cracked",
        "{thing} does not turn on, it is faulty", "a part of {thing} was missing in the box",
        "{thing} was damaged when I opened the package",
        "{thing} fell apart after two days", "there is a big scratch and a dent on {thing}",
        "{thing} came in pieces", "{thing} makes a strange noise and smells burnt",
        "I unpacked {thing} and it was ruined", "{thing} has stopped functioning since this morning",
    ]),
    "invoice": (6, [
        "send me the invoice for {thing}", "I need an invoice with our VAT number", "the invoice shows a wrong address",
        "where can I download my invoice", "please correct the company name on the invoice",
        "the billing document for {thing} is missing",
        "our accounting asks for a receipt for {thing}", "I need paperwork for my tax return",
        "could you issue the bill to my employer", "the receipt has our old street on it",
        "a proof of purchase for {thing} is required by my insurer", "bookkeeping lacks the statement for last month",
    ]),
    "change": (5, [
        "change the delivery address of {thing}", "I want {thing} in another size",
        "can I change the colour of {thing} in my order", "update my phone number on the order",
        "swap {thing} for the larger model", "add another item to my order of {thing}",
        "I have moved, send {thing} to the new place", "I picked the wrong size of {thing}, make it a medium",
        "could I have {thing} in blue instead of red", "please drop it at the office rather than at home",
        "I mistyped my street while ordering {thing}", "make it two of {thing} instead of one",
    ]),
    "praise": (4, [
        "thank you, {thing} is great", "your support was excellent", "I love {thing}",
        "great service, very happy with {thing}", "five stars for {thing}", "thanks for the quick help",
        "just wanted to say that {thing} made my day", "your colleague was so kind and patient",
        "I will recommend you to all my friends", "{thing} is even better than I had hoped",
        "keep up the good work", "what a pleasant surprise, {thing} is wonderful",
    ]),
}  # fmt: skip
THINGS = [
    "the headphones", "my jacket", "the coffee machine", "the blue lamp", "a pair of boots", "the phone case",
    "the keyboard", "my new tablet", "the garden chair", "the rucksack", "order 4711", "the toaster", "the book",
]  # fmt: skip
OPENINGS = ["", "", "hi, ", "hello, ", "good morning, ", "dear team, ", "hey there, ", "sorry to bother you, ",
            "third message now: ", "I was a happy customer until today. ", "quick question, "]  # fmt: skip
CLOSINGS = ["", "", ", thanks", ", please help", ", it is urgent", ". I ordered last month", ". My account is in order",
            ", love your shop otherwise", ". I checked the invoice and the parcel number", ", best regards",
            ". I will cancel everything if this goes on", ". The delivery was quick though"]  # fmt: skip


def rows(uri: str, split: str) -> Iterator[dict[str, str]]:
    """The rows of one split: dicts of text and label, the same on every machine.

    Raises:
        InputError: no such sample.
    """
    _known(uri)
    draw = random.Random(f"{SEED}/{split}")
    weights = [weight for weight, _ in INTENTS.values()]
    for _ in range(ROWS[split]):
        intent = draw.choices(list(INTENTS), weights)[0]
        ways = INTENTS[intent][1]
        text = draw.choice(ways[: len(ways) // 2] if split == "train" else ways)
        text = draw.choice(OPENINGS) + text.format(thing=draw.choice(THINGS)) + draw.choice(CLOSINGS)
        if split == "train" and draw.random() < NOISE_SHARE:
            intent = draw.choice([other for other in INTENTS if other != intent])
        yield {"text": _mistype(text, draw), "label": intent}


def fingerprint(uri: str) -> str:
    """A hash that changes with the generator's code."""
    _known(uri)
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _known(uri: str) -> None:
    if uri != URI:
        raise InputError(f"{uri}: no such sample; allowed: {URI}")


def _mistype(text: str, draw: random.Random) -> str:
    """Swap, drop or double a letter in some of the words."""
    words = text.split(" ")
    for index, word in enumerate(words):
        if len(word) > 3 and draw.random() < TYPO_SHARE:
            at = draw.randrange(len(word) - 1)
            words[index] = draw.choice([
                word[:at] + word[at + 1] + word[at] + word[at + 2 :], word[:at] + word[at + 1 :],
                word[: at + 1] + word[at:],
            ])  # fmt: skip
    return " ".join(words)
