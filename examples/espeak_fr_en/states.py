"""States said jointly in both languages: how somebody or something is, has or needs; the weather."""

from __future__ import annotations

from dataclasses import dataclass

from .lexicon import ADJECTIVES, THINGS, Adjective, Noun
from .morphology import Subject, agree, be, words
from .phrases import NounPhrase, Pair, Phrases
from .verbs import AVOIR, ETRE, PERSONS

IMPERFECT_ETRE = dict(zip(PERSONS, ("étais", "était", "étions", "étiez", "étaient"), strict=True))
IMPERFECT_AVOIR = dict(zip(PERSONS, ("avais", "avait", "avions", "aviez", "avaient"), strict=True))
# Adjectives that are compared: smaller, older ...; more expensive, more famous ...
SHORT_COMPARATIVES = frozenset(
    [
        "small",
        "big",
        "old",
        "young",
        "light",
        "heavy",
        "fast",
        "slow",
        "quiet",
        "cold",
        "short",
        "rich",
        "strong",
        "tall",
        "happy",
        "smart",
    ]
)
LONG_COMPARATIVES = frozenset(
    [
        "beautiful",
        "expensive",
        "modern",
        "elegant",
        "comfortable",
        "famous",
        "delicious",
        "interesting",
        "difficult",
        "serious",
        "dangerous",
        "tired",
    ]
)


@dataclass(frozen=True)
class Clause:
    """What is said about a subject: `predicate` follows the subject in a statement; the question form differs."""

    subject: Subject
    french: str  # the verb group and what follows
    statement: str  # English with the subject
    question: str  # English with the auxiliary before the subject
    object: NounPhrase | None = None

    @property
    def pair(self) -> Pair:
        return Pair(words(self.subject.fr, self.french), self.statement)

    @property
    def predicate(self) -> Pair:
        """Without the subject, for relative clauses and coordination (the English subject must be third person)."""
        return Pair(self.french, self.statement.removeprefix(self.subject.en).strip())


class States(Phrases):
    """Builds clauses with être and avoir, in the present and the imparfait."""

    def state(self, tense: str = "present", subject: Subject | None = None) -> Clause:
        """How somebody or something is, in the present or the imparfait."""
        kinds = (
            (self.feeling, self.feeling, self.bodily, self.lack)
            if subject
            else (self.feeling, self.bodily, self.lack, self.weather, self.weather, self.closed, self.late, self.need)
        )
        make = self.pick(kinds, lambda kind: f"state {kind.__name__}", 2)
        return make(tense, subject or self.subject(pronouns=("je", "nous", "vous", "il", "elle")))

    def be_clause(self, subject: Subject, tense: str, french: str, english: str, verb: str = "être") -> Clause:
        """A clause with être or avoir in French and "to be" in English."""
        if tense == "past":
            finite = (IMPERFECT_ETRE if verb == "être" else IMPERFECT_AVOIR)[subject.person]
            english_be = "was" if subject.person in ("je", "il") else "were"
        else:
            finite, english_be = (ETRE if verb == "être" else AVOIR)[subject.person], be(subject)
        self.tags.add("imparfait" if tense == "past" else "present")
        return Clause(
            subject,
            words(finite, french),
            words(subject.en, english_be, english),
            words(english_be, subject.en, english),
        )

    def feeling(self, tense: str, subject: Subject) -> Clause:
        adjective = self.pick([a for a in ADJECTIVES if "human" in a.tags], lambda a: f"adjective {a.en}")
        french = adjective.french(subject.gender, subject.plural)
        if adjective.en in ("free", "lost"):
            return self.be_clause(subject, tense, french, adjective.en)
        extra = self.pick((("", ""), ("très", "very"), ("trop", "too"), ("", "")), lambda e: f"degree {e[0]}", 2)
        return self.be_clause(subject, tense, words(extra[0], french), words(extra[1], adjective.en))

    def bodily(self, tense: str, subject: Subject) -> Clause:
        options = (
            ("faim", "hungry"),
            ("soif", "thirsty"),
            ("peur", "afraid"),
            ("froid", "cold"),
            ("chaud", "hot"),
            ("raison", "right"),
            ("tort", "wrong"),
            ("de LA chance", "lucky"),
        )
        french, english = self.pick(options, lambda option: f"bodily {option[0]}", 3)
        return self.be_clause(subject, tense, french, english, "avoir")

    def lack(self, tense: str, subject: Subject) -> Clause:
        """ne pas avoir de ...: il n'a pas d'argent / he does not have any money."""
        options = (
            ("d'argent", "any money"),
            ("LE temps", "time"),
            ("de travail", "any work"),
            ("d'amis", "any friends"),
        )
        french, english = self.pick(options, lambda option: f"lack {option[0]}", 2)
        finite = (IMPERFECT_AVOIR if tense == "past" else AVOIR)[subject.person]
        do = "did" if tense == "past" else "does" if subject.third else "do"
        self.tags.update(("negation ne ... pas", "imparfait" if tense == "past" else "present"))
        return Clause(
            subject,
            words("ne", finite, "pas", french),
            words(subject.en, do, "not have", english),
            words(do, subject.en, "not have", english),
        )

    def need(self, tense: str, subject: Subject) -> Clause:
        """avoir besoin de: elle a besoin d'une clé / she needs a key."""
        noun = self.noun(THINGS)
        obj = self.phrase(noun, False, self.rng.choice(("a", "my", "your", "this")), self.adjectives(noun, 0.4))
        finite = (IMPERFECT_AVOIR if tense == "past" else AVOIR)[subject.person]
        verb = "needed" if tense == "past" else "needs" if subject.third else "need"
        do = "did" if tense == "past" else "does" if subject.third else "do"
        return Clause(
            subject,
            words(finite, "besoin de", obj.text.fr),
            words(subject.en, verb, obj.text.en),
            words(do, subject.en, "need", obj.text.en),
        )

    def weather(self, tense: str, subject: Subject) -> Clause:
        self.tags.add("weather")
        options = (
            ("fait froid", "faisait froid", "cold"),
            ("fait chaud", "faisait chaud", "hot"),
            ("pleut", "pleuvait", "raining"),
            ("neige", "neigeait", "snowing"),
            ("fait beau", "faisait beau", "sunny"),
            ("est tard", "était tard", "late"),
            ("fait nuit", "faisait nuit", "dark"),
            ("est tôt", "était tôt", "early"),
        )
        present, past, english = self.pick(options, lambda option: f"weather {option[0]}", 3)
        being = "was" if tense == "past" else "is"
        french = past if tense == "past" else present
        return Clause(Subject("il", "it", "il"), french, f"it {being} {english}", f"{being} it {english}")

    def closed(self, tense: str, subject: Subject) -> Clause:
        options = (("fermé", "closed"), ("ouvert", "open"), ("plein", "full"), ("vide", "empty"))
        french, english = self.pick(options, lambda option: f"closed {option[0]}", 2)
        place = self.as_subject(self.place_phrase("go"))
        return self.be_clause(place, tense, agree(french, place.gender, False) if french != "vide" else french, english)

    def late(self, tense: str, subject: Subject) -> Clause:
        options = (("en retard", "late"), ("en avance", "early"))
        french, english = self.pick(options, lambda option: f"late {option[0]}", 2)
        subject = Subject(*self.vehicle(), "il") if self.chance(0.5) else subject
        return self.be_clause(subject, tense, french, english)

    def vehicle(self) -> Pair:
        """Something one travels by."""
        options = (
            ("LE train", "the train"),
            ("LE bus", "the bus"),
            ("l'avion", "the plane"),
            ("LE métro", "the subway"),
        )
        return Pair(*self.pick(options, lambda option: f"vehicle {option[0]}", 2))

    def fitting(self, noun: Noun, comparative: bool = False) -> Adjective | None:
        """An adjective that can be said of the noun after "to be"."""
        tags = set(noun.tags) | ({"human"} if "person" in noun.tags else set())
        fitting = [a for a in ADJECTIVES if a.tags & tags and not (comparative and "colour" in a.tags)]
        if comparative:
            short = [a for a in fitting if a.en in SHORT_COMPARATIVES]
            fitting = short if short and self.chance(0.75) else [a for a in fitting if a.en in LONG_COMPARATIVES]
        kind = "comparative" if comparative else "adjective"
        return self.pick(fitting, lambda a: f"{kind} {a.en}") if fitting else None
