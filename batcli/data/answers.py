"""The grammar of answers, which writes them for the data and reads free text for the scores.

Written exactly, and read back exactly::

    direction and distance   right, behind, above; 3.5m
    distance                 2m
    labels                   accelerating, revving, vroom; car
    yes or no                Yes

Models do not keep to that, so the readers take what a careful person would take from free text,
and nothing else. Only the first 1,000 characters count; case, Unicode forms and punctuation do not.

Direction
    Three axes, each with two words and their plain synonyms: left/right, front/behind,
    above/below. A word counts wherever it stands. It does not count where it is negated
    ("not left", "rather than behind", "neither above nor below"), where "right" only stresses
    ("right behind you", "that's right"), where it tells which way somebody faces ("facing forward"),
    or where a bound is meant ("up to 3 m", "under 2 m").
Distance
    A number with a unit: metres, centimetres, millimetres, kilometres, feet, inches, yards.
    Numbers are digits (a decimal point or comma), fractions or English words to ninety-nine
    ("two and a half", "half a metre", "two point five", "a couple of"). "6 feet 2 inches" adds
    up. "2 to 3 metres" is its middle, as long as it spans no more than 1 m. Without any unit, a
    single bare number is metres. A bound ("at least 3 m") is its number. Spaces around a decimal
    point do not count ("3 . 5 m").
Yes or no
    Only what is asserted counts. A word of agreement (yes, true, correct) or denial (no, false, wrong)
    is asserted where it makes up a clause ("Yes, …", "definitely not true"), where yes or no opens one
    ("no it is far away"), and where it is what something is ("the answer is no"). Negation before it,
    in its clause, turns it round. Where no such word is asserted, a sentence may open with a short
    answer: "it is", "they do not", "of course not", "neither". Questions assert nothing, nor do
    sentences with a refusal (`REFUSALS`) or a modal, conditional or hedging word (`DOUBTS`), nor
    clauses that give an impression ("it seems", "I think"). Other sentences are not read: their sense
    depends on the question. Exchanging yes and no, true and false, correct and incorrect in an answer
    with such words exchanges what is read.
Labels
    A vocabulary's names as whole words, the longest first, each word used once; plural or
    singular; not where "no", "not", "without", "I cannot hear the" stands before the name, or before a list
    with "or" ("no dog, cat or bird").

Contradictions: an answer with both words of an axis has neither; one with two distances more than
0.25 m apart has none; one with both yes and no has neither. Order, emphasis and afterthoughts do
not decide ("left, no, right" has no side). What an answer does not have counts as wrong, and is
never guessed.
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
"""Characters of an answer that are read. The longest written answer has about 150."""

WIDEST_RANGE = 1.0  # metres: more is hedging, for any number inside would be "right"
SAME_DISTANCE = 0.25  # metres: "2 m (6.6 ft)" says one distance twice


# ---- writing -------------------------------------------------------------------------------------


def write_doa(position: Position) -> str:
    """Write direction and distance of a source: `right, behind, above; 3.5m`."""
    return f"{', '.join(octant(position))}; {write_distance(position.distance)}"


def write_distance(metres: float) -> str:
    """Write a distance, to the nearest 0.5 m: `2m`, `3.5m`."""
    return f"{round_distance(metres):g}m"


def write_labels(names: Iterable[str]) -> str:
    """Write names of events in lower case: `accelerating, revving, vroom; car`. A name may hold a comma."""
    return "; ".join(name.strip().lower() for name in names)


def write_yes_no(value: bool) -> str:
    """Write `Yes` or `No`."""
    return "Yes" if value else "No"


# ---- what all readers share ----------------------------------------------------------------------

_CHARACTERS = str.maketrans(
    {"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "’": "'", "‘": "'", "⁄": "/"}
    | dict.fromkeys("‐‑‒–—−", "-")  # hyphens, dashes and the minus sign
    | {"·": "."}  # a decimal point, too
    | dict.fromkeys('*_`"“”', " ")  # emphasis and quotation
)


def _plain(text: str) -> str:
    """The text in lower case and Unicode's compatible form, with single spaces."""
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
    """Direction and distance of a source, as read from a text; None where it gives none, or contradicts itself."""

    side: str | None  # "left" or "right"
    depth: str | None  # "front" or "behind"
    height: str | None  # "above" or "below"
    distance: float | None  # metres, not rounded

    @property
    def octant(self) -> str | None:
        """`right, behind, above`; None where a word is missing."""
        return None if None in self[:3] else ", ".join(map(str, self[:3]))


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


# "facing forward", "looking straight ahead", "in a forward-facing position"
_FACING = re.compile(
    r"\b(?:fac(?:e|es|ed|ing)|looking|gazing|oriented|pointing|relative to)"
    r"(?: (?:straight|directly|towards?|to the|to your|the|your|my))* $"
)
_FACED = re.compile(r"\w+[ -]facing\b")


def _is_facing(text: str, start: int) -> bool:
    """Whether the word at `start` tells which way somebody faces, not where the sound is."""
    return _FACING.search(text, max(0, start - 60), start) is not None or _FACED.match(text, start) is not None


def _read_direction(text: str) -> tuple[str | None, ...]:
    found: list[set[str]] = [set(), set(), set()]
    for match in _DIRECTION.finditer(text):
        word = str(match.lastgroup)
        if _is_negated(text, match.start()) or _is_facing(text, match.start()):
            continue
        if word == "right" and not _is_side(text, match.start()):
            continue
        found[_AXIS[word]].add(word)
    return tuple(words.pop() if len(words) == 1 else None for words in found)


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
    rf"(?<![\w.,/'])(?<!\d' )(?P<minus>-)?(?P<value>{_VALUE})(?= ?(?:$|[;:!?)\]}}]|[.,](?!\d)|(?:{_AFTER_BARE})\b))"
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


_SPACED_POINT = re.compile(r"(?<![\w.,/])(?<![\d.,] )(\d{1,3})(?: \. ?|\. )(\d{1,3})(?! ?[.,]? ?\d)")


_TWO_SENSES = re.compile(rf"\d , {_VALUE} ?{_UNIT}")  # "3 , 5 m" is 3.5 m, or 5 m after another number
_OTHER_SIGNS = ((re.compile(r"(?<=\d) ?[~〜] ?(?=\d)"), "-"), (re.compile(r"\bminus (?=\d)"), "-"))


def _read_distance(text: str) -> float | None:
    for pattern, sign in _OTHER_SIGNS:  # "2~3 m", "minus 2 m"
        text = pattern.sub(sign, text)
    if _TWO_SENSES.search(text):
        return None
    text = _SPACED_POINT.sub(r"\1.\2", text)  # "3 . 5 m", as some tokenizers write it
    for pattern, digits in _TO_DIGITS:
        text = pattern.sub(digits, text)
    matches = [match for match in _DISTANCE.finditer(text) if not _is_negated(text, match.start())]
    values = [_metres(match) for match in matches or _BARE.finditer(text)]
    agree = values and all(abs(value - values[0]) <= SAME_DISTANCE + 1e-9 for value in values)
    return values[0] if agree and math.isfinite(values[0]) else None


def read_doa(text: str) -> Doa:
    """Read direction words and distance from free text; see the module for the grammar.

    >>> read_doa("It's to your left, behind you, a bit below, roughly 2.5 meters away.")
    Doa(side='left', depth='behind', height='below', distance=2.5)
    >>> read_doa("left or right, in front of you")
    Doa(side=None, depth='front', height=None, distance=None)
    """
    plain = _plain(text)
    side, depth, height = _read_direction(plain)
    return Doa(side, depth, height, _read_distance(plain))


def read_distance(text: str) -> float | None:
    """Read a distance: metres, or None where the text gives none or two different ones.

    >>> read_distance("two and a half metres"), read_distance("between 2 and 3 m"), read_distance("2m, no, 4m")
    (2.5, 2.5, None)
    """
    return _read_distance(_plain(text))


# ---- yes or no -----------------------------------------------------------------------------------
# Wherever the lists name "yes" they name "no" as well, so that exchanging the two in a text
# exchanges what is read of it.


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_YES = _set("yes yeah yep yup y correct true right affirmative")
_NO = _set("no nope nah n incorrect untrue false wrong negative")
_EITHER = r"(?:yes|no|true|false|correct|incorrect|right|wrong)"
_OPENERS = _set("yes yeah yep yup no nope nah")
_ONLY_ALONE = frozenset({"y", "n", "right"})  # answers where nothing else is said
_COMMENTS = frozenset({"right", "wrong"})  # "No, that's right": asserted where none of the others is

_NOT = _set("not never hardly neither nor deny denies dispute disputes")
_NOTHING = _set("nothing nobody none")
_AFFIRMS = _set(
    "indeed absolutely definitely certainly surely precisely exactly undoubtedly ofcourse"
    " undeniably unquestionably indisputably unmistakably"
)
_STRESSES = _AFFIRMS | _set(
    "a an the so oh ah well um hmm ok okay and but then hell very really quite just simply most all completely totally"
    " entirely utterly wholly perfectly plainly clearly obviously factually truly still actually also"
    " evidently decidedly emphatically positively big clear firm definite definitive resounding emphatic simple strong"
)
_ANNOUNCES = _STRESSES | _set("my our your final short answer response verdict")
_AFTER_ANSWER = _AFFIRMS | _set("really actually sir madam please then too again")
_COPULAS = _set("is are was were isn't aren't wasn't weren't remains holds")
_SUBJECTS = _set("it they he she both that this these those")
_AUXILIARIES = _set("is are does do was were did has have can")
_AGREED_WITH = _set("that this you that's you're")  # "that is right" names no side
_BEGIN_CLAUSE = _SUBJECTS | _set("the i i'm you we there it's that's he's she's they're you're not")
_AFTER_TRUE = _set("that the to in for here based given about when according at it they both")
_AFTER_YES = _set("for here based given according to from")
_INTRODUCES = _set("in as to based from given according for on judging after")

# Phrases of several words, written as the one word they stand for.
_IDIOMS = (
    (re.compile(r"\bcan(?:not|'t)\b"), "can not"),
    (re.compile(r"\bof course\b"), "ofcourse"),
    (re.compile(r"\bwithout (?:a |any )?doubt\b"), "undoubtedly"),
    (re.compile(r"\b(?:by no means|in no way|no way|far from|anything but|under no circumstances)\b"), "not"),
    (re.compile(r"\b(?:at all|in (?:fact|the least|the slightest))\b"), "really"),
    (re.compile(r"\bnot only\b|\b(?:that|this) is,|\bi(?:'m| am) afraid\b"), " "),
    (re.compile(r"\bthe case\b"), "true"),
    (re.compile(rf"\b(?:an? )?{_EITHER} ?(?:/|\bor\b) ?(?:an? )?{_EITHER}\b"), " "),  # the choice, not a choice
)

_LISTENED_TO = r"(?:audio|sounds?|clips?|recordings?|files?|speech|input|data|information|evidence|context)"
_CANNOT = r"(?:can ?not|can't|could not|couldn't)"
REFUSALS = (
    # Cannot: "I can't tell", "it cannot be determined", "it is impossible to say".
    rf"(?:i|we|one|you) (?:\w+ )?{_CANNOT}(?! (?:\w+ )?(?:hear|see|find|detect|notice|perceive|agree)\b)",
    rf"{_CANNOT} (?:\w+ )?(?:hear|see|find|detect|perceive)(?: (?:the|any|this|that|your|actual))*"
    rf" (?:{_LISTENED_TO}|anything|it|that|this)\b",
    rf"{_CANNOT} (?:\w+ )?be (?!heard|seen|found|detected)",
    r"unable to|incapable of|(?:not|n't) (?:\w+ )?(?:able|possible) to|impossible to|hard to (?:say|tell)|difficult to",
    r"(?:yes|no) way (?:to|of)|way of (?:knowing|telling)|lacks?|lacking|beyond my|outside my",
    # Does not know, has nothing to go by, will not.
    r"(?:do|does|did)(?: not|n't) (?:\w+ )?(?:know|understand)",
    rf"(?:do|does|did)(?: not|n't)(?: \w+)? (?:have|hear|see|possess)(?: \w+){{0,4}}"
    rf" (?:{_LISTENED_TO}|ability|access|ears)|not enough (?:\w+ )?{_LISTENED_TO}",
    r"(?:not|n't) (?:\w+ )?(?:sure|certain|clear|convinced|confident|known)",
    r"unsure|uncertain|unclear|unknown|undetermined|indeterminate|inconclusive|ambiguous|insufficient|unanswerable",
    r"(?:idea|clue) (?:if|whether|about|what|how|which|where)|(?:have|has|had|'ve) (?:\w+ )?(?:idea|clue)",
    r"(?:will not|won't|refuse to|decline to|prefer not to|rather not|not going to) (?:answer|say|comment|speculate)",
    # Manners: what the model says it is, what it asks for or lacks.
    r"an ai|as an? (?:\w+ ){0,3}(?:model|assistant)|language model|text-based",
    rf"there(?: is|'s| was| are| were) (?:yes |no )?{_LISTENED_TO}|without(?: \w+){{0,2}} {_LISTENED_TO}",
    rf"{_LISTENED_TO} (?:is|was|were|are|has been|have been)(?: not|n't)? "
    r"(?:provided|attached|uploaded|supplied|given|included|missing|available)",
    r"(?:could|can|would) you (?:please )?(?:provide|upload|share|attach|send|clarify|repeat)",
    r"please (?:provide|upload|share|attach|send|clarify|repeat)",
)
"""Phrases by which models refuse a question. A sentence with one of these is neither yes nor no."""

DOUBTS = (
    r"may|might|could|would|should|ought|must|(?:could|would|should)n't|\w+'d",
    rf"can (?:\w+ )?be (?:\w+ )?{_EITHER}",
    r"perhaps|maybe|possibly|potentially|probably|presumably|likely|unlikely|plausibly|conceivably|arguably|argue"
    r"|supposedly|allegedly|apparently|seemingly|hypothetically|theoretically",
    r"(?<!as )if|whether|unless|otherwise|assum(?:e|es|ing)|suppos(?:e|es|ing)|provided that|depend(?:s|ing)|wonder",
    r"guess|guessing|hope|wish|inclined|leaning|(?:i|we) (?:do )?doubt|doubtful|questionable|debatable",
    r"(?:not|n't) (?:necessarily|always)|in (?:theory|principle)|on paper",
    rf"(?:partly|partially|half|half-|somewhat|mostly|sometimes|sort of|kind of|more or less) ?{_EITHER}",
)
"""Modal, conditional and hedging words. A sentence with one of these is neither yes nor no."""

_SAYS_NOTHING = re.compile(rf"(?<!\w)(?:{'|'.join((*REFUSALS, *DOUBTS))})\b")
_IMPRESSION = re.compile(
    r"\b(?:(?:seem|appear|sound|look)(?:s|ed|ing)?|think|believe|feel|suspect|imagine|expect|reckon)\b"
)
_SENTENCE = re.compile(r"(.+?)([.!?;]+(?=\W|$)|$)")
_CLAUSE = re.compile(
    r"[^\w\s'-]+|(?<!\w)-|-(?!\w)"
    r"|\b(?:and|or|but|because|since|although|though|while|whereas|however|therefore|hence|so(?= \w)|(?=nor\b))"
)


def _negated(words: Sequence[str]) -> bool:
    """Whether the negations among `words` turn what follows into its opposite."""
    return sum(word in _NOT or word.endswith("n't") for word in words) % 2 == 1


def _asserted(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The answer words that a clause asserts, each with its value in the clause: True for yes, False for no.

    They assert where the clause is nothing else ("most definitely not true"), where one opens it ("no
    it is far away"), and where they are what something is ("the answer is no").
    """
    start, stop = 0, len(words)
    while start < stop and (words[start] in _ANNOUNCES or words[start] in _NOT):
        start += 1
    while stop > start and (words[stop - 1] in _AFTER_ANSWER or words[stop - 1] in _NOT):
        stop -= 1
    alone = [word for word in words[start:stop] if word not in _STRESSES]
    if alone and all(word in _YES or word in _NO for word in alone):
        negated = _negated(words[:start])
        yield from ((word, (word in _YES) is not negated) for word in alone if negated or word not in _ONLY_ALONE)
        return
    begin = 0
    if len(words) > start + 1 and words[start] in _OPENERS and words[start + 1] in _BEGIN_CLAUSE:
        yield words[start], words[start] in _YES
        begin = start + 1
    for place in range(begin, len(words)):
        if words[place] in _NOTHING:
            return
        if words[place] not in _YES and words[place] not in _NO:
            continue
        if _is_predicate(words, place):
            yield words[place], (words[place] in _YES) is not _negated(words[begin:place])
        elif words[place] in _OPENERS and words[place + 1 : place + 2] not in (["doubt"], ["question"]):
            return  # "no evidence that this is true": what follows is not asserted


def _is_predicate(words: Sequence[str], place: int) -> bool:
    """Whether the answer word at `place` is what something is or is not: "the answer is no", "that's not true"."""
    word, after = words[place], words[place + 1 : place + 2]
    if after and after[0] not in _AFTER_ANSWER and after[0] not in (_AFTER_YES if word in _OPENERS else _AFTER_TRUE):
        return False
    verb = place - 1
    while verb >= 0 and (words[verb] in _STRESSES or words[verb] in _NOT):
        verb -= 1
    if verb < 0 or not (words[verb] in _COPULAS or words[verb].endswith(("'s", "'re"))):
        return False
    return word != "right" or words[0] in _AGREED_WITH or _negated(words[:place])


def _short_answer(words: Sequence[str]) -> bool | None:
    """The value of a clause that is only "it is", "they do not", "neither", "definitely", "not really"; else None."""
    negated = _negated(words)
    core = [word.removesuffix("n't") for word in words if word not in _STRESSES and word not in _NOT]
    if not core:
        return False if negated else True if _AFFIRMS & set(words) else None
    is_short = len(core) == 2 and core[0] in _SUBJECTS and core[1] in _AUXILIARIES
    return not negated if is_short else None


def _assertions(plain: str) -> Iterator[list[list[str]]]:
    """For each sentence that asserts something, the words of its clauses, without those that give an impression."""
    for sentence, end in _SENTENCE.findall(plain):
        if "?" in end or _SAYS_NOTHING.search(sentence):
            continue
        for idiom, word in _IDIOMS:
            sentence = idiom.sub(word, sentence)
        clauses = (_WORDS_OF.findall(clause) for clause in _CLAUSE.split(sentence) if not _IMPRESSION.search(clause))
        yield [words for words in clauses if words]


def read_yes_no(text: str) -> bool | None:
    """Read yes (True) or no (False); None where the text asserts neither or both.

    A whole sentence ("the dog is nearer") is not read: whether it agrees depends on the question.

    >>> read_yes_no("Yes, it is."), read_yes_no("Definitely not."), read_yes_no("Yes and no.")
    (True, False, None)
    >>> read_yes_no("I cannot confirm that this is true."), read_yes_no("No audio was provided.")
    (None, None)
    """
    plain = _plain(text[:MAX_CHARACTERS].replace("\n", ". ").replace("—", " - "))
    if len(words := words_of(plain)) == 1 and words[0] in _ONLY_ALONE:
        return words[0] in _YES
    sentences = list(_assertions(plain))
    found = [one for clauses in sentences for words in clauses for one in _asserted(words)]
    values = {value for word, value in found if word not in _COMMENTS}
    if not values:
        short = (_short_answer(_opening(clauses)) for clauses in sentences)
        values = {value for _, value in found} | {value for value in short if value is not None}
    return values.pop() if len(values) == 1 else None


def _opening(clauses: Sequence[Sequence[str]]) -> Sequence[str]:
    """The first clause that is more than an introduction such as "well" or "in my opinion"."""
    telling = (words for words in clauses if words[0] not in _INTRODUCES and not _only_fills(words))
    return next(telling, ())


def _only_fills(words: Sequence[str]) -> bool:
    return all(word in _STRESSES and word not in _AFFIRMS for word in words)


# ---- labels --------------------------------------------------------------------------------------

_WORDS_OF = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_PART = re.compile(r"[;\n|]")
_DENIES = r"(?:(?<!\w)(?:no|not|cannot|without|nor|neither|never|(?:none|absence|lack) of)\b|n't\b)"
_BETWEEN = (
    r"(?: (?:a|an|the|any|of|hear|see|detect|notice|perceive|recogni[sz]e|identify|find|contain|include|have"
    r"|sounds?|signs?|traces?|hints?|evidence))*"
)
"""Words that may stand between a denial and the name that it denies: "I cannot hear any sign of the dog"."""
_DENIED = re.compile(rf"{_DENIES}{_BETWEEN} $")

# "no dog, cat or ", which denies what it holds and the name that follows it
_LISTED = r"(?!(?:or|nor|and|but|only|just|instead|rather|there|is|are|it|i)\b)[^\W_][\w'-]*"
_LIST = rf"{_LISTED}(?: ?[,/]? ?{_LISTED})*"
_DENIED_LIST = re.compile(
    rf"{_DENIES} {_LIST}(?: ?,? (?:or|nor) | ?/ ?)(?:(?:a|an|the|any|of) )*"
    rf"|\bwithout {_LIST} ?,? and (?:(?:a|an|the|any|of) )*"
)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, lower case, without punctuation."""
    return tuple(_WORDS_OF.findall(_plain(text)))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _plurals(word: str) -> tuple[str, ...]:
    """The forms that a word's plural may have."""
    return f"{word}s", f"{word}es", f"{word.removesuffix('y')}ies", f"{word.removesuffix('fe').removesuffix('f')}ves"


def is_plural_of(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two names, in words, are the same, or differ in that words of one are plurals of the other's.

    >>> is_plural_of(words_of("Baby cry"), words_of("Babies' cries")), is_plural_of(["car"], ["care"])
    (True, False)
    """
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(a == b or b in _plurals(a) or a in _plurals(b) for a, b in pairs)


@dataclass(frozen=True)
class Vocabulary:
    """Label names, lower case, and an index of them by their words. Made by `Vocabulary.of`."""

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
    """The names in a written answer, unchanged but for case: `accelerating, revving, vroom; car` has two."""
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
    """Read names of the vocabulary: their numbers, an empty set where the text has none.

    >>> names = Vocabulary.of(["Speech", "Male speech, man speaking", "Music"])
    >>> sorted(read_labels("I hear a male speech (man speaking) and some music, but no speech.", names))
    [1, 2]
    """
    found = set()
    for part in _PART.split(text[:MAX_CHARACTERS]):
        plain = _plain(part)
        places = list(_WORDS_OF.finditer(plain))
        words = [place[0] for place in places]
        denied = [match.span() for match in _DENIED_LIST.finditer(plain)]
        for start, _, number in find_labels(words, vocabulary):
            first = places[start].start()
            if not _DENIED.search(plain[:first]) and not any(begin <= first <= end for begin, end in denied):
                found.add(number)
    return frozenset(found)
