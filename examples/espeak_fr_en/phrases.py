"""Phrases said jointly in both languages: noun phrases, subjects, places and times, drawn least-used first."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from . import numerals
from .lexicon import (
    ADJECTIVES,
    CITIES,
    DAYS,
    KIN,
    NAMES,
    OWNERS,
    OWNING_KIN,
    PEOPLE,
    PLACES,
    Adjective,
    Noun,
)
from .morphology import Subject, starts_with_vowel, words

T = TypeVar("T")


class Pair(NamedTuple):
    """The same phrase in French (articles still as LE, LA, LES) and in English."""

    fr: str
    en: str

    def __add__(self, other: tuple[str, str]) -> Pair:  # type: ignore[override]
        return Pair(words(self.fr, other[0]), words(self.en, other[1]))


EMPTY = Pair("", "")


@dataclass(frozen=True)
class NounPhrase:
    """A noun phrase with what agreement and later pronouns need."""

    text: Pair
    noun: Noun
    plural: bool

    @property
    def gender(self) -> str:
        return self.noun.gender

    def pronoun(self) -> tuple[str, str]:
        """(le, la or les; it, him, her or them): the object pronoun that stands for it."""
        if self.plural:
            return "les", "them"
        french = "la" if self.gender == "f" else "le"
        if "person" in self.noun.tags:
            return french, "her" if self.gender == "f" else "him"
        return french, "it"


PRONOUNS: dict[str, Subject] = {
    "je": Subject("je", "i", "je", pronoun=True),
    "nous": Subject("nous", "we", "nous", pronoun=True),
    "vous": Subject("vous", "you", "vous", pronoun=True),
    "il": Subject("il", "he", "il", "m", pronoun=True),
    "elle": Subject("elle", "she", "il", "f", pronoun=True),
    "ils": Subject("ils", "they", "ils", "m", pronoun=True),
    "elles": Subject("elles", "they", "ils", "f", pronoun=True),
}
POSSESSIVES = {"my": ("mon", "ma", "mes"), "our": ("notre", "notre", "nos"), "your": ("votre", "votre", "vos")}
# No seven before a noun ("sept" and "cette" sound alike); elsewhere all numbers occur.
COUNTS = (2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 25, 30, 40, 50, 60, 80, 90, 100)
# What a kind of time expression is tagged as; the others are a "time expression".
TIME_TAGS = {"clock": "time of day", "midnight": "time of day", "ago": "number", "in": "number"}
TIME_TAGS |= dict.fromkeys(("date", "other date", "year in"), "date")
# Tenses where "ils" and "elles" sound different from "il" and "elle".
AUDIBLE_PLURAL = ("future", "near", "pouvoir", "devoir", "vouloir", "progressive", "past")


class Phrases:
    """Draws words and builds phrases; `tags` collects the constructions of the current sentence."""

    def __init__(self, seed: int | str) -> None:
        self.rng = random.Random(f"espeak_fr_en {seed}")
        self.usage: Counter[str] = Counter()
        self.tags: set[str] = set()

    # ---- drawing
    def pick(self, items: Sequence[T], key: Callable[[T], str] = str, width: int = 4) -> T:
        """The least used of `width` items drawn at random, so that words occur about equally often."""
        if not items:
            raise ValueError("pick: no item fits here")
        drawn = [self.rng.choice(items) for _ in range(width)]
        chosen = min(drawn, key=lambda item: self.usage[key(item)])
        self.usage[key(chosen)] += 1
        return chosen

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    # ---- noun phrases
    def noun(self, nouns: Sequence[Noun], *tags: str) -> Noun:
        """A noun that has one of `tags` (any noun without tags)."""
        fitting = [noun for noun in nouns if not tags or noun.tags.intersection(tags)]
        return self.pick(fitting, key=lambda noun: f"noun {noun.fr}")

    def adjective(self, noun: Noun, before: bool | None = None) -> Adjective | None:
        fitting = [
            adjective
            for adjective in ADJECTIVES
            if adjective.tags & noun.tags and "state" not in adjective.tags and before in (None, adjective.before)
        ]
        return self.pick(fitting, key=lambda adjective: f"adjective {adjective.en}") if fitting else None

    def adjectives(self, noun: Noun, rate: float) -> list[Adjective]:
        """No, one or (rarely) two adjectives, one on each side of the French noun."""
        if not self.chance(rate):
            return []
        first = self.adjective(noun)
        if first is None:
            return []
        chosen = [first]
        if self.chance(0.25):
            second = self.adjective(noun, before=not first.before)
            pair = [adjective for adjective in (first, second) if adjective is not None and adjective.before]
            if second is not None and pair[0].en in ("small", "big", "old", "new", "young"):
                chosen.append(second)
        for adjective in chosen:
            self.tags.add("adjective before the noun" if adjective.before else "adjective after the noun")
        return chosen

    def phrase(self, noun: Noun, plural: bool, determiner: str, adjectives: Sequence[Adjective] = ()) -> NounPhrase:
        """Determiner, adjectives and noun, agreed on both sides; `determiner` is the English one or a number."""
        before = [adjective for adjective in adjectives if adjective.before]
        after = [adjective for adjective in adjectives if not adjective.before]
        name = noun.french(plural)
        following = starts_with_vowel(name)
        group = [adjective.french(noun.gender, plural, following) for adjective in before] + [name]
        group += [adjective.french(noun.gender, plural) for adjective in after]
        article, english = self.determiner(noun, plural, determiner, starts_with_vowel(group[0]))
        ordered = [*before, *after]
        if before and after and before[0].en in ("old", "new", "young") and "colour" not in after[0].tags:
            ordered = [*after, *before]  # a funny young teacher, but an old white horse
        english_group = [adjective.en for adjective in ordered] + [noun.english(plural)]
        return NounPhrase(Pair(words(article, *group), words(english, *english_group)), noun, plural)

    def determiner(self, noun: Noun, plural: bool, determiner: str, vowel: bool) -> tuple[str, str]:
        """The French and the English determiner."""
        feminine = noun.gender == "f"
        if determiner.isdigit():
            self.tags.add("number")
            return numerals.french_number(int(determiner)), numerals.english_number(int(determiner))
        if determiner in POSSESSIVES:
            self.tags.add("possessive")
            masculine, feminine_form, plural_form = POSSESSIVES[determiner]
            return (plural_form if plural else feminine_form if feminine and not vowel else masculine), determiner
        if determiner == "the":
            return ("LES" if plural else "LA" if feminine else "LE"), "the"
        if determiner == "this":
            self.tags.add("demonstrative")
            if plural:
                return "ces", "these"
            return ("cette" if feminine else "cet" if vowel else "ce"), "this"
        if determiner == "any":  # after a negation
            return "de", "any"
        if determiner == "which":
            return ("quelle" if feminine else "quel"), "which"
        if plural:
            return "des", "some"
        return ("une" if feminine else "un"), "a"

    def mass(self, noun: Noun, negated: bool = False, adjectives: Sequence[Adjective] = ()) -> NounPhrase:
        """Partitive: du pain / some bread; pas de pain / any bread. Adjectives after the noun only."""
        article = "de" if negated else "de LA" if noun.gender == "f" else "de LE"
        self.tags.add("partitive")
        french = words(article, noun.fr, *(adjective.french(noun.gender, False) for adjective in adjectives))
        english = words("any" if negated else "some", *(adjective.en for adjective in adjectives), noun.en)
        return NounPhrase(Pair(french, english), noun, False)

    def object(self, noun: Noun, negated: bool = False, rate: float = 0.55, definite: bool = False) -> NounPhrase:
        """A noun as an object: any determiner that suits it."""
        if "mass" in noun.tags:
            adjectives = [a for a in self.adjectives(noun, rate) if not a.before]
            if definite:
                return self.phrase(noun, False, "the", adjectives)
            return self.mass(noun, negated, adjectives)
        if "person" in noun.tags:
            return self.person(noun, plural_rate=0.2)
        if "place" in noun.tags:
            return self.phrase(noun, False, self.rng.choice(("the", "the", "this", "a")), self.adjectives(noun, rate))
        plural = noun.countable and self.chance(0.4)
        adjectives = self.adjectives(noun, rate)
        if definite:
            return self.phrase(
                noun, plural, self.pick(("the", "my", "your", "our", "this"), lambda d: f"d {d}", 2), adjectives
            )
        if negated:
            return self.phrase(noun, plural, self.rng.choice(("the", "my", "your", "this")), adjectives)
        choices = ["the", "a", "my", "your", "our", "this"]
        if plural:
            choices = ["the", "my", "your", "our", "this", "number", "number"]
            if not any(adjective.before for adjective in adjectives):
                choices += ["a"]  # des: before an adjective it would be "de", which sounds like deux
        determiner = self.rng.choice(choices)
        if determiner == "number":
            determiner = str(self.count())
        return self.phrase(noun, plural, determiner, adjectives)

    def count(self, most: int = 100) -> int:
        return self.pick([number for number in COUNTS if number <= most], lambda number: f"count {number}")

    # ---- people
    def person(self, noun: Noun | None = None, plural_rate: float = 0.0, rate: float = 0.25) -> NounPhrase:
        """A person as a noun phrase: my sister, the young doctor, three tourists."""
        noun = noun or self.noun(KIN if self.chance(0.35) else PEOPLE)
        plural = noun.countable and self.chance(1.8 * plural_rate)
        adjectives = self.adjectives(noun, rate)
        if "kin" in noun.tags:
            return self.phrase(noun, plural, self.pick(tuple(POSSESSIVES), lambda d: f"kin {d}", 2), adjectives)
        choices = ["the", "the", "this", "number" if plural else "a"]
        determiner = self.rng.choice(choices)
        return self.phrase(noun, plural, str(self.count(20)) if determiner == "number" else determiner, adjectives)

    def name(self) -> Subject:
        french, gender = self.pick(NAMES, lambda name: f"name {name[0]}")
        return Subject(french, french, "il", gender)

    def subject(self, tense: str = "present", pronouns: Sequence[str] = (), third: bool = False) -> Subject:
        """Somebody; `pronouns` restricts the choice of pronouns, `third` leaves out i, we and you."""
        roll = self.rng.random()
        if roll < 0.45:
            allowed = list(pronouns or ("je", "nous", "vous", "il", "elle"))
            if not pronouns and tense in AUDIBLE_PLURAL:
                allowed += ["ils", "elles"]
            if third:
                allowed = [name for name in allowed if name not in ("je", "nous", "vous")]
            if allowed:
                return PRONOUNS[self.pick(allowed, lambda name: f"pronoun {name}", 2)]
        if roll < 0.6:
            return self.name()
        return self.as_subject(self.person(plural_rate=0.25))

    @staticmethod
    def as_subject(phrase: NounPhrase) -> Subject:
        return Subject(phrase.text.fr, phrase.text.en, "ils" if phrase.plural else "il", phrase.gender)

    def owned(self, noun: Noun, plural: bool = False) -> NounPhrase:
        """le vélo de ma sœur / my sister's bicycle."""
        self.tags.add("possessor")
        if self.chance(0.5):
            french = owner = self.pick(OWNERS, lambda name: f"owner {name}")
        else:
            kin = self.phrase(
                self.noun([noun for noun in KIN if noun.fr in OWNING_KIN]),
                False,
                self.pick(tuple(POSSESSIVES), lambda d: f"kin {d}", 2),
            )
            french, owner = kin.text
        thing = self.phrase(noun, plural, "the", self.adjectives(noun, 0.3))
        english = thing.text.en.removeprefix("the ")
        return NounPhrase(Pair(words(thing.text.fr, "de", french), f"{owner}'s {english}"), noun, plural)

    # ---- places
    def place(self, kind: str = "at") -> Pair:
        """Where: "at" being somewhere, "go" going there, "pool" swimming, "near" beside something."""
        self.tags.add("place")
        if kind == "go":
            if self.chance(0.2):
                city = self.pick(CITIES, lambda city: f"city {city[0]}")
                return Pair(f"à {city[0]}", f"to {city[1]}")
            return Pair("à", "to") + self.place_phrase("go").text
        if kind == "pool":
            return Pair("à LA piscine", "at the pool") if self.chance(0.5) else Pair("dans LA rivière", "in the river")
        roll = self.rng.random()
        if roll < 0.1:
            city = self.pick(CITIES, lambda city: f"city {city[0]}")
            return Pair(f"à {city[0]}", f"in {city[1]}")
        if roll < 0.4:
            return Pair("à", "at") + self.place_phrase("at", 0.2).text
        if roll < 0.7:
            return Pair("dans", "in") + self.place_phrase("in", 0.35).text
        return self.beside()

    def place_phrase(self, tag: str, rate: float = 0.15) -> NounPhrase:
        noun = self.noun(PLACES, tag)
        return self.phrase(noun, False, "the", self.adjectives(noun, rate))

    def beside(self) -> Pair:
        """devant, derrière, près de ... a place or a person's house."""
        prepositions = (
            ("devant", "in front of"),
            ("derrière", "behind"),
            ("près de", "near"),
            ("à côté de", "next to"),
            ("en face de", "opposite"),
            ("loin de", "far from"),
        )
        noun = self.noun([noun for noun in PLACES if "room" not in noun.tags])
        place = self.phrase(noun, False, "the", self.adjectives(noun, 0.15))
        return Pair(*self.pick(prepositions, lambda pair: f"prep {pair[0]}")) + place.text

    # ---- times
    def time(self, tense: str) -> Pair:
        """When: an expression that fits the tense."""
        if tense == "past":
            return self.past_time()
        if tense in ("future", "near", "pouvoir", "devoir", "vouloir"):
            return self.future_time()
        if tense == "progressive":
            return Pair("en ce moment", "at the moment")
        return self.habit()

    def date(self) -> Pair:
        """le douze mars / on the twelfth of march; days 1 to 28."""
        day = self.pick(range(1, 29), lambda day: f"date {day}")
        return Pair(*numerals.date(day, self.pick(range(1, 13), lambda month: f"date month {month}", 2)))

    def recent(self) -> Pair:
        """A past time that one thanks for."""
        while True:
            time = self.past_time()
            if time.fr.startswith(("hier", "LA semaine")) or "dernier" in time.fr:
                return time

    def past_time(self) -> Pair:
        day = self.pick(DAYS, lambda day: f"day {day[0]}")
        number = self.rng.randint(2, 20)
        amount = Pair(numerals.french_number(number), numerals.english_number(number))
        units = (("jours", "days"), ("semaines", "weeks"), ("mois", "months"), ("ans", "years"), ("heures", "hours"))
        unit = self.pick(units, lambda unit: f"unit {unit[0]}", 2)
        year = self.rng.choice((self.rng.randint(1950, 1999), self.rng.randint(2001, 2024)))
        options: list[tuple[str, Pair]] = [
            ("hier", Pair("hier", "yesterday")),
            ("hier matin", Pair("hier matin", "yesterday morning")),
            ("hier soir", Pair("hier soir", "last night")),
            ("day", Pair(f"{day[0]} dernier", f"last {day[1]}")),
            ("week", Pair("LA semaine dernière", "last week")),
            ("month", Pair("LE mois dernier", "last month")),
            ("year", Pair("l'année dernière", "last year")),
            ("ago", Pair(words("il y a", amount.fr, unit[0]), words(amount.en, unit[1], "ago"))),
            ("date", self.date()),
            ("other date", self.date()),
            ("year in", Pair("en", "in") + numerals.year(year)),
            ("clock", Pair("hier à", "yesterday at") + numerals.random_clock(self.rng)),
        ]
        return self._time_of(options)

    def future_time(self) -> Pair:
        day = self.pick(DAYS, lambda day: f"day {day[0]}")
        number = self.rng.randint(2, 20)
        units = (("jours", "days"), ("semaines", "weeks"), ("mois", "months"), ("ans", "years"), ("minutes", "minutes"))
        unit = self.pick(units, lambda unit: f"unit {unit[0]}", 2)
        amount = Pair(numerals.french_number(number), numerals.english_number(number))
        options: list[tuple[str, Pair]] = [
            ("demain", Pair("demain", "tomorrow")),
            ("demain matin", Pair("demain matin", "tomorrow morning")),
            ("ce soir", Pair("ce soir", "tonight")),
            ("cet après-midi", Pair("cet après-midi", "this afternoon")),
            ("day", Pair(f"{day[0]} prochain", f"next {day[1]}")),
            ("week", Pair("LA semaine prochaine", "next week")),
            ("month", Pair("LE mois prochain", "next month")),
            ("year", Pair("l'année prochaine", "next year")),
            ("in", Pair("dans", "in") + amount + unit),
            ("date", self.date()),
            ("other date", self.date()),
            ("clock", Pair("demain à", "tomorrow at") + numerals.random_clock(self.rng)),
        ]
        return self._time_of(options)

    def habit(self) -> Pair:
        day = self.pick(DAYS, lambda day: f"day {day[0]}")
        clock = numerals.random_clock(self.rng)
        month = self.pick(numerals.MONTHS, lambda month: f"month {month[0]}", 2)
        options: list[tuple[str, Pair]] = [
            ("tous", Pair("tous LES jours", "every day")),
            ("matin", Pair("LE matin", "in the morning")),
            ("soir", Pair("LE soir", "in the evening")),
            ("chaque", Pair(f"chaque {day[0]}", f"every {day[1]}")),
            ("semaine", Pair("chaque semaine", "every week")),
            ("mois", Pair("chaque mois", "every month")),
            ("printemps", Pair("chaque printemps", "every spring")),
            ("été", Pair("chaque été", "every summer")),
            ("hiver", Pair("chaque hiver", "every winter")),
            ("automne", Pair("chaque automne", "every fall")),
            ("month", Pair("en", "in") + month),
            ("clock", Pair("à", "at") + clock),
            ("midnight", Pair("à minuit", "at midnight")),
        ]
        return self._time_of(options)

    def _time_of(self, options: list[tuple[str, Pair]]) -> Pair:
        kind, pair = self.pick(options, lambda option: f"time {option[0]}")
        self.tags.add(TIME_TAGS.get(kind, "time expression"))
        return pair
