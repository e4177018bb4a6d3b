"""Numbers, ordinals, years, times of day and prices in words, in French and in English."""

from __future__ import annotations

import random

Pair = tuple[str, str]

_FR_SMALL = [
    "zéro",
    "un",
    "deux",
    "trois",
    "quatre",
    "cinq",
    "six",
    "sept",
    "huit",
    "neuf",
    "dix",
    "onze",
    "douze",
    "treize",
    "quatorze",
    "quinze",
    "seize",
    "dix-sept",
    "dix-huit",
    "dix-neuf",
]
_FR_TENS = {20: "vingt", 30: "trente", 40: "quarante", 50: "cinquante", 60: "soixante", 80: "quatre-vingt"}
_EN_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_EN_TENS = ["", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_EN_ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
]
MONTHS: tuple[Pair, ...] = (
    ("janvier", "january"), ("février", "february"), ("mars", "march"), ("avril", "april"), ("mai", "may"),
    ("juin", "june"), ("juillet", "july"), ("août", "august"), ("septembre", "september"), ("octobre", "october"),
    ("novembre", "november"), ("décembre", "december"),
)  # fmt: skip


def french_number(number: int, feminine: bool = False) -> str:
    """0..9999 in French words; `feminine` turns a final "un" into "une"."""
    if not 0 <= number <= 9999:
        raise ValueError(f"french_number: the number must lie in 0..9999, got {number}")
    one = "une" if feminine else "un"
    if number < 20:
        return one if number == 1 else _FR_SMALL[number]
    if number < 100:
        tens, rest = number // 10 * 10, number % 10
        if tens in (70, 90):
            tens, rest = tens - 10, rest + 10
        if rest == 0:
            return "quatre-vingts" if tens == 80 else _FR_TENS[tens]
        if rest in (1, 11) and tens != 80:
            return f"{_FR_TENS[tens]} et {one if rest == 1 else 'onze'}"
        return f"{_FR_TENS[tens]}-{one if rest == 1 else _FR_SMALL[rest]}"
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        head = "cent" if hundreds == 1 else f"{_FR_SMALL[hundreds]} cent" + ("s" if rest == 0 else "")
        return head if rest == 0 else f"{head} {french_number(rest, feminine)}"
    thousands, rest = divmod(number, 1000)
    head = "mille" if thousands == 1 else f"{_FR_SMALL[thousands]} mille"
    return head if rest == 0 else f"{head} {french_number(rest, feminine)}"


def english_number(number: int) -> str:
    """0..9999 in English words, without hyphens and without "and"; one hundred is "one hundred"."""
    if not 0 <= number <= 9999:
        raise ValueError(f"english_number: the number must lie in 0..9999, got {number}")
    if number < 20:
        return _EN_SMALL[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return _EN_TENS[tens - 1] + (f" {_EN_SMALL[rest]}" if rest else "")
    base, word = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = divmod(number, base)
    return f"{_EN_SMALL[head]} {word}" + (f" {english_number(rest)}" if rest else "")


def english_ordinal(number: int) -> str:
    """1..31 as an English ordinal: "twenty first"."""
    if not 1 <= number <= 31:
        raise ValueError(f"english_ordinal: the number must lie in 1..31, got {number}")
    if number <= 20:
        return _EN_ORDINALS[number - 1]
    if number == 30:
        return "thirtieth"
    return f"{_EN_TENS[number // 10 - 1]} {_EN_ORDINALS[number % 10 - 1]}"


def date(day: int, month: int) -> Pair:
    """Day 1..31 of month 1..12: ("le douze mars", "on the twelfth of march")."""
    day_fr = "premier" if day == 1 else french_number(day)
    return f"le {day_fr} {MONTHS[month - 1][0]}", f"on the {english_ordinal(day)} of {MONTHS[month - 1][1]}"


def year(number: int) -> Pair:
    """1910..1999 and 2001..2099: ("mille neuf cent quatre-vingts", "nineteen eighty")."""
    if 1910 <= number <= 1999:
        return french_number(number), f"nineteen {english_number(number - 1900)}"
    if 2001 <= number <= 2099:
        return french_number(number), english_number(number)
    raise ValueError(f"year: the year must lie in 1910..1999 or 2001..2099, got {number}")


def clock(hour: int, minutes: int) -> Pair:
    """A time of day: ("huit heures vingt", "eight twenty"); half and quarter hours in the usual words."""
    if hour not in range(1, 13) or minutes not in range(0, 60, 5):
        raise ValueError(f"clock: hour must lie in 1..12 and minutes be a multiple of 5, got {hour}:{minutes}")
    if minutes == 45:  # huit heures moins le quart: the quarter before the hour named
        following = hour % 12 + 1
        return f"{_hours(following)} moins le quart", f"a quarter to {_hour_en(following)}"
    if minutes == 30:
        return f"{_hours(hour)} et demi{'' if hour == 12 else 'e'}", f"half past {english_number(hour)}"
    if minutes == 15:
        return f"{_hours(hour)} et quart", f"a quarter past {_hour_en(hour)}"
    if minutes == 0:
        return _hours(hour), _hour_en(hour) if hour == 12 else f"{_hour_en(hour)} o'clock"
    return f"{_hours(hour)} {french_number(minutes)}", f"{_hour_en(hour)} {english_number(minutes)}"


def _hours(hour: int) -> str:
    return "midi" if hour == 12 else f"{french_number(hour, feminine=True)} heure{'s' if hour > 1 else ''}"


def _hour_en(hour: int) -> str:
    return "noon" if hour == 12 else english_number(hour)


def price(euros: int, cents: int = 0) -> Pair:
    """("douze euros cinquante", "twelve euros fifty")."""
    french = f"{french_number(euros)} euro{'s' if euros > 1 else ''}"
    english = f"{english_number(euros)} euro{'s' if euros > 1 else ''}"
    return (
        (french, english) if cents == 0 else (f"{french} {french_number(cents)}", f"{english} {english_number(cents)}")
    )


def random_clock(rng: random.Random) -> Pair:
    """A time of day; noon only without odd minutes."""
    hour = rng.randint(1, 12)
    return clock(hour, rng.choice((0, 30) if hour == 12 else (0, 0, 10, 15, 20, 25, 30, 35, 40, 45, 50)))


def numeral_words() -> frozenset[str]:
    """Every English word that writes a numeral: left out of the count of word forms."""
    return frozenset(_EN_SMALL + _EN_TENS + _EN_ORDINALS + ["hundred", "thousand", "thirtieth"]) - {""}
