"""Answers as text: one grammar, which writes them for the data and reads them for the scores.

Written exactly, and read back exactly::

    direction and distance   right, behind, above; 3.5m
    distance                 2m
    labels                   accelerating, revving, vroom; car
    yes or no                Yes

Models do not keep to that, so the readers take what a careful person would take from free text,
and nothing else. Only the first 1,000 characters count; case, Unicode forms and punctuation do not.

Direction
    Three axes, each with two words and their plain synonyms: left/right, front/behind,
    above/below. Every word that stands anywhere is said. It is not said where it is negated
    ("not left", "rather than behind", "neither above nor below"), where "right" only stresses
    ("right behind you", "that's right"), or where a bound is meant ("up to 3 m", "under 2 m").
Distance
    A number with a unit: metres, centimetres, millimetres, kilometres, feet, inches, yards.
    Numbers are digits (a decimal point or comma), fractions or English words to ninety-nine
    ("two and a half", "half a metre", "two point five", "a couple of"). "6 feet 2 inches" adds
    up. "2 to 3 metres" is its middle, as long as it spans no more than 1 m. Without any unit, a
    single bare number is metres. A bound ("at least 3 m") is its number.
Yes or no
    A word such as yes, correct, true or no, false, incorrect, or a clause that is no more than "it
    is", "they do not", "neither". Whole sentences are not read: their sense depends on the question.
Labels
    A vocabulary's names as whole words, the longest first, each word used once; plural or
    singular; not where "no", "not" or "without" stands before the name.

Contradictions: an answer that says both words of an axis has not said that axis; one that gives
two distances more than 0.25 m apart has given none; one that says both yes and no has said
neither. Order, emphasis and afterthoughts do not decide ("left, no, right" says no side).
What is not said counts as wrong, and is never guessed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from batcli.data.geometry import Position, octant, round_distance

MAX_CHARACTERS = 1_000
"""What of an answer is read. The longest written answer has about 150 characters."""

WIDEST_RANGE = 1.0  # metres: more is hedging, for any number inside would be "right"
SAME_DISTANCE = 0.25  # metres: "2 m (6.6 ft)" says one distance twice


# ---- writing -------------------------------------------------------------------------------------


def write_doa(position: Position) -> str:
    """Direction and distance of a source: `right, behind, above; 3.5m`."""
    return f"{', '.join(octant(position))}; {write_distance(position.distance)}"


def write_distance(metres: float) -> str:
    """Metres to the nearest 0.5 m: `2m`, `3.5m`."""
    return f"{round_distance(metres):g}m"


def write_labels(names: Iterable[str]) -> str:
    """Names of events, lower case: `accelerating, revving, vroom; car`. A name may hold a comma, but no semicolon."""
    return "; ".join(name.strip().lower() for name in names)


def write_yes_no(value: bool) -> str:
    return "Yes" if value else "No"


# ---- what all readers share ----------------------------------------------------------------------

_CHARACTERS = str.maketrans(
    {"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "’": "'", "‘": "'", "⁄": "/"}
    | dict.fromkeys("‐‑‒–—−", "-")  # hyphens, dashes and the minus sign
    | dict.fromkeys('*_`"“”', " ")  # emphasis and quotation
)


def _plain(text: str) -> str:
    """Lower case, compatible characters made one, white space single."""
    text = text[:MAX_CHARACTERS].translate(_CHARACTERS)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


_NEGATED = re.compile(
    r"(?:\bnot|n't|\bnever|\bneither|\bnor|\brather than|\binstead of|\bwithout)"
    r"(?: (?:to|on|at|in|from|of|or|the|your|my|a|an|any|bit|being|coming|located|directly|exactly|really|quite|about"
    r"|left|right|front|behind|above|below))* $"
)


def _is_negated(text: str, start: int) -> bool:
    """Whether "not", "rather than", … governs the word at `start`."""
    return _NEGATED.search(text, max(0, start - 60), start) is not None


# ---- direction and distance ----------------------------------------------------------------------


class Doa(NamedTuple):
    """What a text says about where a source is; None where it says nothing, or contradicts itself."""

    side: str | None  # "left" or "right"
    depth: str | None  # "front" or "behind"
    height: str | None  # "above" or "below"
    distance: float | None  # metres, as said: not rounded


_DIRECTION = re.compile(
    r"""\b(?:
      (?P<left>  left(?:most|wards?|hand)?)
    | (?P<right> right(?:most|wards?|hand)?)
    | (?P<front> front(?:al|wards?)? | ahead | forwards?)
    | (?P<behind> behind | back(?:wards?)? | rear(?:wards?)?)
    | (?P<above> above | overhead | over(?=\ (?:you|your|my|the)\b) | up(?:per|wards?)?(?!\ to\b) | higher | top | atop)
    | (?P<below> below | beneath | under(?:neath|foot) | under(?!\ (?:about\ )?(?:\d|a\ met|one|two|three))
               | down(?:wards?)? | lower | bottom)
    )(?![\w'])""",
    re.VERBOSE,
)
_AXIS = {"left": 0, "right": 0, "front": 1, "behind": 1, "above": 2, "below": 2}

# "right" may only stress what follows ("right behind you", "right overhead"), unless an article or
# another direction before it makes it a side ("to the right ahead"), or agree ("that's right").
_STRESSING = re.compile(
    r"(?<!the )(?<!your )(?<!my )(?<!to )(?<!upper )(?<!lower )(?<!front )(?<!back )(?<!rear )right "
    r"(?:(?:behind|in front of|above|below|beneath|under|underneath|over|on top of) (?:you|your|me|my|the)\b"
    r"|(?:in front|ahead|overhead|next to|beside|here|there|now|away)\b)"
)
_AGREEING = re.compile(r"(?:that's|that is|you're|you are|this is|all) $")


def _is_side(text: str, start: int) -> bool:
    """Whether the "right" at `start` is the opposite of left."""
    return not _STRESSING.match(text, start) and not _AGREEING.search(text, max(0, start - 9), start)


def _read_direction(text: str) -> tuple[str | None, ...]:
    said: list[set[str]] = [set(), set(), set()]
    for match in _DIRECTION.finditer(text):
        word = str(match.lastgroup)
        if _is_negated(text, match.start()) or (word == "right" and not _is_side(text, match.start())):
            continue
        said[_AXIS[word]].add(word)
    return tuple(words.pop() if len(words) == 1 else None for words in said)


_METRES = {
    r"met(?:er|re)s?|mtrs?|mts|m": 1.0,
    r"centimet(?:er|re)s?|cms?": 0.01,
    r"millimet(?:er|re)s?|mm": 0.001,
    r"kilomet(?:er|re)s?|kms?": 1000.0,
    r"feet|foot|ft": 0.3048,
    r"inch(?:es)?|in(?=\W*$|[,;:)])": 0.0254,  # "3 in front" is no length
    r"yards?|yds?": 0.9144,
}
_UNIT = rf"(?:{'|'.join(_METRES)})(?![a-z0-9])"
_VALUE = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*[.,]\d+|\d+)"

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {word: value for value, word in enumerate(_SMALL.split())}
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
_ONES = "|".join(_SMALL.split()[1:10])


def _fraction(match: re.Match[str]) -> str:
    whole, above, below = (int(group or 0) for group in match.groups())
    return f"{whole + above / below:.6g}" if below else "?"


# Numbers in words and fractions become digits, one form after the other.
_TO_DIGITS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (
        re.compile(rf"\b({_TENS.replace(' ', '|')})[ -]({_ONES})\b"),
        lambda match: str(_WORDS[match[1]] + _WORDS[match[2]]),
    ),
    (re.compile(rf"\b(?:{'|'.join(_WORDS)})\b"), lambda match: str(_WORDS[match[0]])),
    (re.compile(r"\b(\d+) point ((?:\d ?)+)\b"), lambda match: f"{match[1]}.{match[2].replace(' ', '')}"),
    (re.compile(r"(?<![\w./])(?:(\d{1,3}) )?(\d{1,2})/(\d{1,2})(?![\d/])"), _fraction),
    (re.compile(r"\b(?:an? |1 )?half\b(?: an?\b)?"), lambda match: "0.5"),
    (re.compile(r"\b(?:an? |1 )?quarter\b(?: of an?\b)?"), lambda match: "0.25"),
    (re.compile(r"\b3[ -]quarters\b(?: of an?\b)?"), lambda match: "0.75"),
    (re.compile(rf"\ba couple(?: of)?(?= {_UNIT})"), lambda match: "2"),
    (re.compile(rf"\ban?(?= {_UNIT})"), lambda match: "1"),
    (
        re.compile(rf"\b(\d+)( {_UNIT})? and (0\.\d+)\b"),
        lambda match: f"{int(match[1]) + float(match[3])}{match[2] or ''}",
    ),
)
_DISTANCE = re.compile(
    rf"(?<![\w.,/])(?<!\d )(?P<minus>-)?"
    rf"(?:(?P<low>{_VALUE})(?: ?(?P<low_unit>{_UNIT}))?(?: ?- ?| to | or )"
    rf"|(?<=between )(?P<between>{_VALUE})(?: ?(?P<between_unit>{_UNIT}))? and )?"
    rf"(?P<value>{_VALUE})[ -]?(?P<unit>{_UNIT})"
    rf"(?:,? (?:and )?(?P<more>{_VALUE})[ -]?(?P<small>centimet(?:er|re)s?|cms?|inch(?:es)?|in)(?![a-z0-9]))?"
)
_AFTER_BARE = "away|off|out|far|distant|from|left|right|front|behind|above|below|in front"
_BARE = re.compile(
    rf"(?<![\w.,/])(?P<minus>-)?(?P<value>{_VALUE})(?= ?(?:$|[;:!?)\]}}]|[.,](?!\d)|(?:{_AFTER_BARE})\b))"
)


def _value(digits: str) -> float:
    thousands = re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", digits)
    return float(digits.replace(",", "" if thousands else "."))


def _scale(unit: str) -> float:
    return next(metres for spelling, metres in _METRES.items() if re.fullmatch(spelling, unit))


def _metres(match: re.Match[str]) -> float:
    """The distance that `_DISTANCE` or `_BARE` matched; NaN for what is none: negative, or a wide range."""
    found = match.groupdict()
    scale = _scale(found["unit"]) if "unit" in found else 1.0
    metres = _value(found["value"]) * scale
    if found.get("more"):
        metres += _value(found["more"]) * _scale(found["small"])
    if start := found.get("low") or found.get("between"):
        start_unit = found["low_unit"] or found["between_unit"]
        low = _value(start) * (_scale(start_unit) if start_unit else scale)
        metres = (low + metres) / 2.0 if 0.0 <= metres - low <= WIDEST_RANGE + 1e-9 else math.nan
    return math.nan if found["minus"] else metres


def _read_distance(text: str) -> float | None:
    for pattern, digits in _TO_DIGITS:
        text = pattern.sub(digits, text)
    matches = [match for match in _DISTANCE.finditer(text) if not _is_negated(text, match.start())]
    values = [_metres(match) for match in matches or _BARE.finditer(text)]
    agree = values and all(abs(value - values[0]) <= SAME_DISTANCE + 1e-9 for value in values)
    return values[0] if agree and math.isfinite(values[0]) else None


def read_doa(text: str) -> Doa:
    """Direction words and distance of a free text; see the module for the grammar.

    >>> read_doa("It's to your left, behind you, a bit below, roughly 2.5 meters away.")
    Doa(side='left', depth='behind', height='below', distance=2.5)
    >>> read_doa("left or right, in front of you")
    Doa(side=None, depth='front', height=None, distance=None)
    """
    plain = _plain(text)
    side, depth, height = _read_direction(plain)
    return Doa(side, depth, height, _read_distance(plain))


def read_distance(text: str) -> float | None:
    """Metres, or None where the text gives no distance or two different ones.

    >>> read_distance("two and a half metres"), read_distance("between 2 and 3 m"), read_distance("2m, no, 4m")
    (2.5, 2.5, None)
    """
    return _read_distance(_plain(text))


# ---- yes or no -----------------------------------------------------------------------------------

_END = r"(?=[ ]*(?:$|[.,;:!?)]))"
_AUXILIARY = "is|are|does|do|was|were|did|has|have|can"
_YES = re.compile(
    r"\b(?:yes|yeah|yep|yup|correct|true|affirmative|indeed|absolutely|definitely|certainly|of course|exactly)\b"
    r"|\b(?:that's|that is|you're|you are) right\b|^\W*(?:right|y)\W*$"
    rf"|(?:^|[.!?;] )(?:it|they|he|she|both|that|this) (?:{_AUXILIARY}){_END}"
)
_NO = re.compile(
    r"\b(?:nope|nah|incorrect|untrue|false|wrong|negative|by no means|not at all)\b|^\W*n\W*$"
    rf"|(?:(?:^|[.,;:!?(-])[ ]*|\banswer (?:is |would be )?)no\b(?! (?:doubt|question)\b)|\bno{_END}"
    rf"|(?:^|[.!?;] )(?:(?:it|they|he|she|both|that|this) (?:{_AUXILIARY})(?:n't| not)|neither|none){_END}"
)
_NOT_TRUE = re.compile(r"(?:\bnot|n't)(?: (?:quite|entirely|really|at all))? (?:correct|true|right|the case|so)\b")
_NOT_FALSE = re.compile(r"(?:\bnot|n't) (?:incorrect|untrue|false|wrong)\b")


def read_yes_no(text: str) -> bool | None:
    """True for yes, False for no, None where the text says neither or both.

    A whole sentence ("the dog is nearer") is not read: whether it agrees depends on the question.

    >>> read_yes_no("Yes, it is."), read_yes_no("They are not."), read_yes_no("Yes and no.")
    (True, False, None)
    """
    plain = _NOT_FALSE.sub(" yes", _NOT_TRUE.sub(" nope", _plain(text)))
    yes, no = bool(_YES.search(plain)), bool(_NO.search(plain))
    return None if yes == no else yes


# ---- labels --------------------------------------------------------------------------------------

_WORDS_OF = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_PART = re.compile(r"[;\n|]")
_WITHOUT = frozenset({"no", "not", "without", "isn't", "nor", "neither", "never"})
_ARTICLES = frozenset({"a", "an", "the", "any", "of"})


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, lower case, without punctuation."""
    return tuple(_WORDS_OF.findall(_plain(text)))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


@dataclass(frozen=True)
class Vocabulary:
    """Label names, lower case, and where to find them by their words. Made by `Vocabulary.of`."""

    names: tuple[str, ...]
    by_words: dict[tuple[str, ...], int]
    longest: dict[str, int]  # first word, singular → words of the longest name that starts so

    @classmethod
    def of(cls, names: Iterable[str]) -> Vocabulary:
        """Names in the given order; one that only repeats another's words is dropped."""
        kept: dict[tuple[str, ...], str] = {}
        for name in names:
            words = words_of(name)
            if words:
                kept.setdefault(words, name.strip().lower())
        by_words = {words: number for number, words in enumerate(kept)}
        longest: dict[str, int] = {}
        for words, number in list(by_words.items()):
            by_words.setdefault(tuple(map(_singular, words)), number)
            first = _singular(words[0])
            longest[first] = max(longest.get(first, 0), len(words))
        return cls(tuple(kept.values()), by_words, longest)


def split_labels(text: str) -> list[str]:
    """The names in a written answer, as they stand: `accelerating, revving, vroom; car` has two."""
    return [name for part in text.split(";") if (name := part.strip().lower())]


def find_labels(words: Sequence[str], vocabulary: Vocabulary) -> Iterator[tuple[int, int, int]]:
    """(first word, word after the last, number) of each name among `words`: the longest first, none overlapping."""
    start = 0
    while start < len(words):
        for stop in range(min(len(words), start + vocabulary.longest.get(_singular(words[start]), 0)), start, -1):
            exact = tuple(words[start:stop])
            number = vocabulary.by_words.get(exact)
            if number is None:
                number = vocabulary.by_words.get(tuple(map(_singular, exact)))
            if number is not None:
                yield start, stop, number
                start = stop - 1
                break
        start += 1


def read_labels(text: str, vocabulary: Vocabulary) -> frozenset[int]:
    """Which of the vocabulary's names (their numbers) a text says; empty where it says none.

    >>> names = Vocabulary.of(["Speech", "Male speech, man speaking", "Music"])
    >>> sorted(read_labels("I hear a male speech (man speaking) and some music, but no speech.", names))
    [1, 2]
    """
    found = set()
    for part in _PART.split(text[:MAX_CHARACTERS]):
        words = words_of(part)
        for start, _, number in find_labels(words, vocabulary):
            before = [word for word in words[max(0, start - 3) : start] if word not in _ARTICLES]
            if not before or before[-1] not in _WITHOUT:
                found.add(number)
    return frozenset(found)
