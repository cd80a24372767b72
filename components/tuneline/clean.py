"""What can be wrong inside a text, and its repair: prepare counts by these patterns, and serve cleans as prepare did.

A pattern that finds too much is worse than none: each is bound to what a person would call damage or personal data,
and was read against film reviews, text messages, news and short commands.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from html.entities import html5
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuneline.config import Policy

# C0 and C1 without tab and line ends, soft hyphen, zero-width space and joiner, byte order mark, bidirectional
# overrides. The joiners U+200C and U+200D and the marks U+200E and U+200F stay: Persian, Hindi and emoji need them.
CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]"
)
_SEPARATES = frozenset("\x0b\x0c\x1c\x1d\x1e\x1f\x85")

_NAMES = (
    "a|abbr|acronym|address|article|aside|audio|b|big|blink|blockquote|body|br|button|caption|center|cite|code|col|"
    "dd|del|div|dl|dt|em|embed|figure|font|footer|form|frame|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|label|"
    "li|link|main|meta|nav|ol|option|p|pre|q|s|samp|script|section|select|small|span|strike|strong|style|sub|sup|"
    "table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|u|ul|video"
)
# Only HTML's own names, so that <unk>, <3 and <name> stay; attributes need a =, so that "x <a and b> y" does too. The
# first = is where the pattern looks for one: any of them, and a text of a thousand takes a second.
_TAG = re.compile(
    rf"<(/?)({_NAMES})(?:\s[^<>=]{{0,500}}=[^<>]{{0,1000}})?\s{{0,9}}/?>|<!--[^<>]{{0,500}}-->", re.IGNORECASE
)
_INLINE = frozenset(
    "a abbr acronym b big cite code del em font i ins q s samp small span strike strong sub sup tt u".split()
)
# The second form lost its ampersand on the way, as in much news text: "Apple #39;s" and "quot;".
_ENTITY = re.compile(
    r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});|(?<![&\w;])(#[0-9]{2,4}|quot|amp|lt|gt|nbsp);"
)

EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
# A number is a telephone's by its form alone: +country, (area) and groups of 3-3-4, or eleven digits from a 0 on.
PHONE = re.compile(
    r"(?<![\w.,$£€#/+-])(?:"
    r"(?:\+|00)(?=(?:[ .()-]{0,2}[0-9]){8})[1-9][0-9]{0,2}[ .-]?(?:\(0?[0-9]{1,4}\)[ .-]?)?"
    r"[0-9]{2,4}(?:[ .-]?[0-9]{2,4}){1,4}"
    r"|(?:1[ .-])?\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .-][0-9]{4}"
    r"|(?:1[ .-])?[2-9][0-9]{2}([ .-])[2-9][0-9]{2}\1[0-9]{4}"
    r"|0[1-9][0-9]{9}|0[1-9][0-9]{2,3}[ -][0-9]{6,7}|0[1-9][0-9]{1,3}[ -][0-9]{3,4}[ -][0-9]{3,4}"
    r")(?![\w-]|[.,][0-9])"
)
CARD = re.compile(
    r"(?<![\w.,+=/-])[2-6][0-9]{3}([ -]?)(?:[0-9]{4}\1[0-9]{4}\1[0-9]{1,7}|[0-9]{6}\1[0-9]{4,5})(?![\w-]|[.,][0-9])"
)
# The networks' first digits and lengths (ISO/IEC 7812 issuers): Visa, Mastercard twice, American Express, Diners Club,
# JCB, Discover and UnionPay.
_NETWORK = re.compile(
    r"4(?:\d{12}|\d{15})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}|35\d{14}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}"
)


def _one_byte() -> dict[str, int]:
    """The byte above 0x7f that each character stands for where Windows-1252, or Latin-1, decoded it."""
    found = {chr(byte): byte for byte in range(0x80, 0x100)}
    for byte in range(0x80, 0xA0):
        found |= {bytes([byte]).decode("cp1252", "ignore"): byte}
    found.pop("", None)
    return found


_BYTES = _one_byte()
_CONTINUES = "".join(re.escape(character) for character, byte in _BYTES.items() if byte < 0xC0)
# Characters after which a word may truly end: "IRMÃ”" closes a quotation, "cafÃ©" does not.
_ENDS = frozenset("“”‘’‚„…–—«»‹›·°®™¹²³ªº")
_OPENS = frozenset("„‚«»“‘")
# UTF-8 read as Windows-1252: Latin in two, Cyrillic and Greek in runs of twos, the rest in three or four.
_MISREAD = re.compile(
    f"[\xc2-\xc5][{_CONTINUES}]|(?:[\xce-\xd1][{_CONTINUES}]){{2,}}"
    f"|[\xe0-\xef][{_CONTINUES}]{{2}}|[\xf0-\xf4][{_CONTINUES}]{{3}}"
)
_C1 = {byte: bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xA0)}
_C1_REPAIR = {byte: character for byte, character in _C1.items() if character}


def is_mojibake(text: str) -> bool:
    """Whether a wrong encoding once decoded the text, or a right one failed and left U+FFFD."""
    return "\ufffd" in text or repair(text) != text


def repair(text: str) -> str:
    """Undo UTF-8 read as Windows-1252 (up to thrice over), and C1 characters that Windows-1252 means as signs."""
    for _ in range(3):
        repaired = _MISREAD.sub(_reread, text)
        if repaired == text:
            break
        text = repaired
    return text if text.isascii() else text.translate(_C1_REPAIR)


def _reread(match: re.Match[str]) -> str:
    found, before = match.group(), match.string[max(match.start() - 1, 0) : match.start()]
    ends = [character in _ENDS for character in found[1:]]
    if all(ends) and (len(found) > 2 or before.isupper() or before in _OPENS):
        return found
    try:
        return bytes(_BYTES[character] for character in found).decode("utf-8")
    except UnicodeDecodeError:
        return found


def has_markup(text: str) -> bool:
    """Whether the text holds an HTML tag, comment or entity, also one that lost its ampersand."""
    return _TAG.search(text) is not None or any(_known(match) for match in _ENTITY.finditer(text))


def _known(match: re.Match[str]) -> bool:
    name = match.group(1) or match.group(2)
    return name.startswith("#") or f"{name};" in html5


def _without_markup(text: str) -> str:
    for _ in range(3):  # an entity may spell a tag, or another entity
        plain = _ENTITY.sub(_character, _TAG.sub(_gap, text))
        if plain == text:
            break
        text = plain
    return text


def _gap(match: re.Match[str]) -> str:
    """A line break or cell parted two words, a <b> did not."""
    return "" if (match.group(2) or "").lower() in _INLINE else " "


def _character(match: re.Match[str]) -> str:
    return html.unescape(f"&{match.group(1) or match.group(2)};") if _known(match) else match.group()


def _without_control(text: str) -> str:
    return CONTROL.sub(lambda match: " " if match.group() in _SEPARATES else "", text)


def has_card(text: str) -> bool:
    """Whether the text holds a payment card's number: a network's, whose check digit (Luhn, ISO/IEC 7812) holds."""
    return any(_is_card(match.group()) for match in CARD.finditer(text))


def _is_card(number: str) -> bool:
    plain = number.replace(" ", "").replace("-", "")
    digits = [int(digit) for digit in plain]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return _NETWORK.fullmatch(plain) is not None and (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _without_personal(text: str) -> str:
    text = EMAIL.sub("<email>", text)
    text = CARD.sub(lambda match: "<card>" if _is_card(match.group()) else match.group(), text)
    return PHONE.sub("<phone>", text)


_REPAIRS: dict[str, Callable[[str], str]] = {
    "mojibake": repair,
    "control_characters": _without_control,
    "markup": _without_markup,
    "personal_data": _without_personal,
}
FIXES = tuple(_REPAIRS)
"""The fixes that change texts, in the order of their use: mojibake first, whose bytes look like controls."""


def fixes_of(policy: Policy) -> list[str]:
    """The fixes that change texts and that the policy asks for."""
    return [name for name in FIXES if getattr(policy, name) == "fix"]


def clean(text: str, fixes: Sequence[str]) -> str:
    """The text after these fixes, whatever their order in the list.

    Args:
        text: any text.
        fixes: names out of FIXES; none leaves the text as it is.
    """
    for name, fix in _REPAIRS.items():
        if name in fixes:
            text = fix(text)
    return text
